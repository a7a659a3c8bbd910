import dataclasses

import orjson
import pytest

from rerank_cli.benchmarking.analysis import Estimate, Times, advise, limit_of
from rerank_cli.benchmarking.bench import Report
from rerank_cli.benchmarking.input_sample import InputSample, Stretch
from rerank_cli.benchmarking.report import as_dict, duration, lines
from rerank_cli.benchmarking.row_size_search import Trials
from rerank_cli.benchmarking.sample_run import SampleRun
from rerank_cli.engine.contract import ModelFacts, Work
from rerank_cli.engine.profiling.flops import Flops
from rerank_cli.engine.profiling.machine import Machine
from rerank_cli.engine.profiling.peak import Peak
from rerank_cli.formats import InputOptions
from rerank_cli.records import Place, Shape

TIMES = Times(wall=10, device=8.0, rows_wait=2.0, output_wait=0.0, input_wait=0.5, tokenize=9.0, read=1, write=1)
PASSED = SampleRun(
    times=TIMES, chunk_pairs=64, pairs=200, tokens=20_000, truncated=50, duplicates=3, texts=150,
    work=Work(10, 19_000, 20_000), cpu=19.0, flops=Flops(400, 600), pace=[(5.0, 10_000)] * 2,
)  # fmt: skip
REPORT = Report(
    machine=Machine("cpu", "Some CPU", "AVX512", 2, 2, None, "2.13"),
    model=ModelFacts("m", "r1", "encoder", "cpu", "fp32", 10_000_000, True, 512, 384, 2048),
    sample=InputSample(InputOptions(("in",)), Shape.RERANK, 1000, [Stretch(Place(), 200, 2, 1, 200, 900, 900, 100)]),
    load=1.5,
    first_score=2.0,
    peak=Peak(90.0, 100.0, "fp32"),
    passed=PASSED,
    limit=limit_of(TIMES, "cpu"),
    trials=Trials(advise({1024: [1.0] * 3, 2048: [1.5] * 3}, 2048), "", 3000, 3, (4096,)),
    estimate=Estimate(3700.0, 12_345, 0.08, True),
)


def changed(**changes):
    return dataclasses.replace(REPORT, **changes)


def text(report):
    return "\n".join(lines(report))


def test_the_share_of_the_peak_is_operations_over_the_devices_time_and_the_better_peak():
    assert REPORT.mfu == pytest.approx(400 / 8 / 100)
    assert REPORT.mfu_nominal == pytest.approx(600 / 8 / 100)


def test_the_json_holds_every_figure():
    found = orjson.loads(orjson.dumps(as_dict(REPORT)))
    assert (found["mfu"], found["mfu_nominal"]) == (0.5, 0.75)
    assert found["pairs_per_second"] == 20.0
    assert found["sample"]["padding_ratio"] == 0.05
    assert found["limit"]["what"] == "tokenizer"
    assert found["batch_tokens"]["recommended"] == 1024
    assert found["batch_tokens"]["tokens_per_second"] == {"1024": 3000.0, "2048": 2000.0}
    assert found["batch_tokens"]["too_large"] == [4096]
    assert found["whole_input"]["seconds"] == 3700.0
    assert found["cpu_share"] == 0.95


def test_the_table_says_what_limits_and_what_to_set():
    table = text(REPORT)
    assert "limit        the tokenizer: the device waited 20% of the time for token ids" in table
    assert "set          --batch-tokens 1024: +50.0%" in table
    assert "50.0% of the peak, by operations done" in table
    assert "about 1 h 1 min ± 8%, if later texts are as long" in table
    assert "4,096  out of memory" in table


def test_what_is_not_counted_is_said_to_be_so():
    report = changed(passed=dataclasses.replace(PASSED, flops=None))
    assert report.mfu is None
    assert "MFU          not counted" in text(report)
    assert as_dict(report)["flops"] is None


def test_a_stream_has_no_estimate():
    report = changed(estimate=None)
    assert "no estimate: the size of the input is not known" in text(report)
    assert as_dict(report)["whole_input"] is None


def test_an_estimate_without_an_error_says_why():
    report = changed(estimate=dataclasses.replace(REPORT.estimate, error=None))
    assert "about 1 h 1 min, the sample is too small for an error margin, if later texts" in text(report)
    assert as_dict(report)["whole_input"]["relative_error"] is None


def test_sizes_that_were_not_tried_are_said_to_be_so():
    report = changed(trials=Trials(None, "too slow"))
    assert "no other --batch-tokens was tried: too slow" in text(report)
    assert as_dict(report)["batch_tokens"] is None


def test_a_machine_that_others_use_is_told_of():
    busy = dataclasses.replace(TIMES, device=9.9)
    shared = dataclasses.replace(PASSED, times=busy, cpu=8.0)
    assert "other processes use the machine" in text(changed(passed=shared, limit=limit_of(busy, "cpu")))
    alone = dataclasses.replace(shared, cpu=19.9)
    assert "other processes use the machine" not in text(changed(passed=alone, limit=limit_of(busy, "cpu")))


def test_the_time_of_threads_says_nothing_of_a_gpu():
    model = dataclasses.replace(REPORT.model, device="cuda:0")
    assert changed(model=model).cpu_share is None


def test_times_are_told_in_two_units():
    assert [duration(s) for s in (4.25, 42, 90, 3700, 90_000)] == [
        "4.2 s",
        "42 s",
        "1 min 30 s",
        "1 h 1 min",
        "1 d 1 h",
    ]
