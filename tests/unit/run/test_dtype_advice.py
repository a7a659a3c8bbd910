import json
import logging
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from processes import TINY

from rerank_cli.api.files import run_file
from rerank_cli.choices import OutputFormat, ProgressMode, Quantize
from rerank_cli.cli import main as command_line
from rerank_cli.cli import run as run_command
from rerank_cli.engine import fast_bf16
from rerank_cli.engine.limits import find
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.engine.spare_memory import spare_memory
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.models.instructions import has_bf16
from rerank_cli.run import job
from rerank_cli.run.comparison import Difference, difference
from rerank_cli.run.folders.job import run_folder
from rerank_cli.run.job import run
from rerank_cli.run.options import Cascade, RunConfig
from rerank_cli.run.scoring import dtype_advice
from rerank_cli.run.scoring.dtype_advice import DtypeAdvice, Trial, affordable, is_room, scoring_seconds


def test_the_line_says_what_bf16_gives_and_costs_and_how_to_choose():
    line = Trial(240, 2.437, Difference(0.0312, 0.9912)).line
    assert "2.4 times as fast" in line
    assert "240 pairs" in line
    assert "worst |Δ| of logits 0.031" in line
    assert "Kendall τ of rankings 0.991" in line
    assert "--dtype bf16" in line
    assert "--dtype fp32" in line
    assert "\n" not in line


def test_rankings_are_compared_query_by_query():
    exact = np.array([3.0, 2.0, 1.0, 10.0, 9.0], dtype=np.float32)
    found = np.array([3.0, 1.0, 1.5, 10.0, 9.25], dtype=np.float32)
    assert difference(["a", "a", "a", "b", "b"], found, exact) == Difference(1.0, pytest.approx((1 / 3 + 1) / 2))
    alone = difference(list("abcde"), exact[::-1], exact)
    assert alone.kendall_tau == pytest.approx(difference(["a"] * 5, exact[::-1], exact).kendall_tau)


def test_a_score_that_is_not_finite_is_infinitely_far_and_one_without_reference_does_not_count():
    exact = np.array([3.0, 2.0, np.nan], dtype=np.float32)
    assert difference(["a"] * 3, exact, exact) == Difference(0.0, 1.0)
    assert difference(["a"] * 3, np.array([np.nan, 2.0, 1.0], dtype=np.float32), exact) == Difference(math.inf, -1.0)


def test_the_deepest_layer_is_compared():
    exact = np.array([[0.0, 1.0], [0.0, 2.0]], dtype=np.float32)
    assert difference(["a", "a"], exact + np.array([5.0, 0.5], dtype=np.float32), exact) == Difference(0.5, 1.0)


def test_the_length_of_a_run_is_estimated_by_its_scoring():
    assert scoring_seconds(10.0, 10.0, 90.0) == 100.0
    assert scoring_seconds(10.0, 20.0, 90.0) == 55.0  # half of the time it waits for something else
    assert scoring_seconds(70.0, 70.0, None) == 70.0


def test_a_trial_has_as_many_pairs_as_there_is_time_for():
    assert affordable(3.0, 0, pace=100.0) == 60
    assert affordable(3.0, 500_000_000, pace=100.0) == 20  # two seconds of it load the weights
    assert affordable(3.0, 0, pace=5.0) == 0
    assert affordable(600.0, 0, pace=1000.0) == 256


def test_a_heavy_model_needs_memory_that_is_known_to_be_there():
    assert is_room(100_000_000, None)
    assert not is_room(600_000_000, None)
    assert is_room(600_000_000, 3_000_000_000)
    assert not is_room(600_000_000, 2_000_000_000)
    assert not is_room(100_000_000, 300_000_000)


def test_spare_memory_is_that_of_the_machine_within_the_limit_of_the_container(tmp_path):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    assert spare_memory(meminfo, group) is None
    meminfo.write_text("MemTotal: 16 kB\nMemAvailable:       8 kB\n")
    assert spare_memory(meminfo, group) == 8192
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    assert spare_memory(meminfo, group) == 8192
    (group / "memory.max").write_text("9000\n")
    (group / "memory.current").write_text("8000\n")
    (group / "memory.stat").write_text("anon 4000\nfile 3000\nfile_mapped 5\n")
    assert spare_memory(meminfo, group) == 4000


def test_bf16_is_not_fast_without_instructions_for_it(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not fast_bf16.is_bf16_fast()
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert has_bf16()


def test_instructions_that_are_not_faster_do_not_count(monkeypatch):
    monkeypatch.setattr(fast_bf16, "has_bf16", lambda: True)
    for seconds, fast in ((0.5, True), (0.9, False), (1.5, False)):
        found = {torch.float32: 1.0, torch.bfloat16: seconds}
        monkeypatch.setattr(fast_bf16, "_fastest", lambda dtype, found=found: torch.tensor(found[dtype]))
        assert fast_bf16.is_bf16_fast() is fast


# Whole runs, with the tiny model.

MODEL = ModelOptions(TINY, device="cpu", threads=1)
SMALL = str(Path(TINY).with_name("xlm-roberta"))


@pytest.fixture
def given(tmp_path, monkeypatch):
    """An input, on a machine whose bf16 is fast."""
    monkeypatch.setattr(fast_bf16, "is_bf16_fast", lambda: True)
    path = tmp_path / "in.jsonl"
    texts = [f"pandas eat {n} kilos of bamboo a day" for n in range(10)]
    path.write_text("".join(json.dumps({"query": f"panda {n}?", "documents": texts}) + "\n" for n in range(6)))
    return path


def config(given, name, **options):
    output = OutputOptions(f"{given.parent}/{name}", OutputFormat.API, AnswerOptions("tiny"))
    options = {"model": MODEL, "progress": ProgressMode.OFF, "chunk_pairs": 20} | options
    return RunConfig(**{"input": InputOptions((str(given),)), "output": output} | options)


def go(plan, **advice):
    """The summary, and what was advised: at once, and whatever bf16 gives."""
    said = []
    settings = {"open_model": open_session, "long": 0.0, "enough": 0.0, "least_gain": 0.0} | advice
    summary, _ = run(plan, open_session, signals=False, advice=DtypeAdvice(said.append, **settings))
    return summary, said


def test_a_long_run_is_told_once_and_writes_the_same(given):
    plain, _ = run(config(given, "plain.jsonl"), open_session, signals=False)
    opened = []

    def open_model(options):
        session = open_session(options)
        opened.append((options.dtype, weakref.ref(session._scorer.model.backbone)))
        return session

    summary, said = go(config(given, "out.jsonl"), open_model=open_model)
    assert len(said) == 1
    assert said[0].startswith("bf16 is ")
    assert "measured on 20 pairs of this run" in said[0]
    ((dtype, weights),) = opened
    assert dtype == "bf16"
    assert weights() is None
    assert summary.work == plain.work
    assert given.with_name("out.jsonl").read_bytes() == given.with_name("plain.jsonl").read_bytes()
    assert [path.name for path in given.parent.glob("out*")] == ["out.jsonl"]


def test_one_object_advises_once_in_several_runs(given):
    said = []
    advice = DtypeAdvice(said.append, open_session, long=0.0, enough=0.0, least_gain=0.0)
    for name in ("one.jsonl", "two.jsonl"):
        run(config(given, name), open_session, signals=False, advice=advice)
    assert len(said) == 1


def test_an_output_folder_is_told_once_for_all_its_files(given):
    said = []
    other = given.with_name("other.jsonl")
    other.write_bytes(given.read_bytes())
    plan = config(given, "out/", input=InputOptions((str(given), str(other))))
    advice = DtypeAdvice(said.append, open_session, long=0.0, enough=0.0, least_gain=0.0)
    summary, _ = run_folder(plan, open_session, lambda wanted: find(wanted).revision, signals=False, advice=advice)
    assert len(summary.done) == 2
    assert len(said) == 1


@pytest.mark.parametrize(
    ("keywords", "advised"),
    [({"notify": print}, True), ({}, False), ({"notify": print, "dtype": "auto"}, False)],
)
def test_a_program_is_advised_if_it_wants_messages(given, monkeypatch, keywords, advised):
    seen = []
    monkeypatch.setattr(job, "run", lambda *_, advice, **__: seen.append(advice) or (None, None))
    run_file(given, given.with_name("out.jsonl"), model=TINY, **keywords)
    assert [advice is not None for advice in seen] == [advised]


@pytest.mark.parametrize(
    ("plan", "advice"),
    [
        ({}, {"long": 3600.0}),
        ({}, {"enough": 3600.0}),
        ({}, {"least_gain": math.inf}),
        ({"model": ModelOptions(TINY, device="cpu", threads=1, dtype="bf16")}, {}),
        ({"model": ModelOptions(TINY, device="cpu", threads=1, quantize=Quantize.INT8)}, {}),
        ({"limit": 1}, {"long": 3600.0}),
        ({"cascade": Cascade(ModelOptions(SMALL, device="cpu", threads=1), 5, 0)}, {}),
    ],
)
def test_other_runs_are_told_nothing(given, plan, advice):
    summary, said = go(config(given, "out.jsonl", **plan), **advice)
    assert summary.stats.finished
    assert said == []


def test_a_slow_or_full_machine_is_told_nothing_but_its_log(given, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "rerank_cli")
    monkeypatch.setattr(dtype_advice, "is_room", lambda *_: False)
    assert go(config(given, "one.jsonl"))[1] == []
    assert [record.message for record in caplog.records if "memory" in record.message]
    monkeypatch.setattr(fast_bf16, "is_bf16_fast", lambda: False)
    assert go(config(given, "two.jsonl"))[1] == []
    assert [record.message for record in caplog.records if "not fast" in record.message]


def test_an_error_of_the_trial_is_one_line_in_the_log_and_the_run_goes_on(given, caplog):
    def broken(_):
        raise RuntimeError("no such kernel\nand a long story")

    caplog.set_level(logging.INFO, "rerank_cli")
    summary, said = go(config(given, "out.jsonl"), open_model=broken)
    assert summary.stats.finished
    assert said == []
    line, took = [record.message for record in caplog.records if "bf16" in record.message]
    assert took.startswith("trying bf16 took ")
    assert line == "bf16 could not be tried: RuntimeError: no such kernel"


@pytest.mark.parametrize(
    ("flags", "environment", "advised"),
    [
        ([], {}, True),
        (["--dtype", "auto"], {}, False),
        (["--dtype", "fp32"], {}, False),
        (["--quiet"], {}, False),
        (["--devices", "cpu,cpu"], {}, False),
        ([], {"RERANK_DTYPE": "auto"}, False),
        (["--config", "settings.toml"], {}, False),
    ],
)
def test_who_chooses_a_dtype_or_silence_is_not_advised(given, monkeypatch, flags, environment, advised):
    seen = []

    def stand_in(*_, advice=None, **__):
        seen.append(advice)
        raise typer.Exit

    monkeypatch.chdir(given.parent)
    given.with_name("settings.toml").write_text('dtype = "fp32"\n')
    monkeypatch.setattr(job, "run", stand_in)
    monkeypatch.setattr(run_command, "prepare", lambda **_: None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command_line.app(["run", str(given), "-o", "out.jsonl", "-m", TINY, *flags], standalone_mode=False)
    assert [advice is not None for advice in seen] == [advised]
