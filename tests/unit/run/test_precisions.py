"""`rerank bench --dtypes`: which precision is recommended by measured figures, and how it is shown."""

import dataclasses
import json

import pytest
from processes import TINY
from test_bench_report import REPORT

from rerank_cli.benchmarking import precisions
from rerank_cli.benchmarking.precisions import Precisions, Row, compare, is_hopeless, parse_precisions, recommend
from rerank_cli.benchmarking.report import as_dict, lines
from rerank_cli.choices import Quantize
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import UsageError
from rerank_cli.run.comparison import Difference


def row(name, seconds, tau=0.99, worst=0.02):
    return Row(name, (seconds,) * 3, Difference(worst, tau))


FP32 = Row("fp32", (4.0, 4.0, 4.0))


def test_fp32_comes_first_whether_it_is_named_or_not():
    assert parse_precisions("bf16,int8") == parse_precisions("bf16,fp32,int8,bf16") == ("fp32", "bf16", "int8")


@pytest.mark.parametrize(("text", "message"), [("fp32", "nothing to compare"), ("bf16,fp8", "no precision 'fp8'")])
def test_other_names_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_precisions(text)


@pytest.mark.parametrize(
    ("rows", "best", "remarks"),
    [
        ([row("bf16", 2.0)], "bf16", {"bf16": "pays: 2.00 times the speed of fp32"}),
        ([row("bf16", 3.9)], "fp32", {"bf16": "does not pay: 1.03 times the speed of fp32"}),
        ([row("bf16", 2.0, tau=0.8)], "fp32", {"bf16": "faster, but rankings differ: τ below 0.95"}),
        ([row("bf16", 2.0, tau=float("nan"))], "fp32", {}),
        ([row("bf16", 2.0), row("int8", 2.5)], "bf16", {"int8": "does not pay: 0.80 times the speed of bf16"}),
        ([row("int8", 2.5), row("bf16", 2.0)], "bf16", {"int8": "does not pay: 0.80 times the speed of bf16"}),
        ([row("bf16", 8.0), row("int8", 2.0)], "int8", {"bf16": "does not pay: 0.50 times the speed of fp32"}),
        ([row("bf16", 2.0), row("int8", 1.0)], "int8", {"int8": "pays: 2.00 times the speed of bf16"}),
        ([row("bf16", 2.0), row("int8-bf16", 1.0, tau=0.5)], "bf16", {}),
        ([row("bf16", 2.0), Row("int8", why="not available: no")], "bf16", {"int8": "not available: no"}),
    ],
)
def test_what_is_recommended(rows, best, remarks):
    verdict = recommend([FP32, *rows])
    assert verdict.best.name == best
    assert set(verdict.remarks) == {"fp32", *(one.name for one in rows)}
    assert remarks.items() <= verdict.remarks.items()


def test_speeds_are_compared_round_by_round():
    assert Row("bf16", (1.0, 10.0, 1.0)).over(Row("fp32", (2.0, 20.0, 8.0))) == 2.0


FOUND = Precisions(64, 3, [FP32, row("bf16", 2.0), Row("int8", why="not available: --quantize int8: no kernel")])


def test_the_table_has_a_line_for_each_and_what_to_set():
    text = "\n".join(lines(dataclasses.replace(REPORT, precisions=FOUND)))
    assert "medians of 3 rounds of 64 pairs in turns" in text
    assert "       fp32        16.0    1.00           0      1.0000  the default" in text
    assert "       bf16        32.0    2.00        0.02      0.9900  pays: 2.00 times the speed of fp32" in text
    assert "       int8  not available: --quantize int8: no kernel" in text
    assert "set          --dtype bf16: 2.00 times the speed" in text
    alone = "\n".join(lines(dataclasses.replace(REPORT, precisions=Precisions(64, 3, [FP32]))))
    assert "set          nothing: no other precision pays here" in alone
    assert "dtypes" not in "\n".join(lines(REPORT))


def test_the_json_has_the_same():
    found = json.loads(json.dumps(as_dict(dataclasses.replace(REPORT, precisions=FOUND))["dtypes"]))
    assert found["recommended"] == "bf16"
    fp32, bf16, int8 = found["rows"]
    assert (fp32["speedup"], bf16["speedup"], bf16["pairs_per_second"]) == (1.0, 2.0, 32.0)
    assert (bf16["worst_delta"], bf16["kendall_tau"], bf16["flags"]) == (0.02, 0.99, "--dtype bf16")
    assert (int8["available"], int8["speedup"], int8["flags"]) == (False, None, "--dtype fp32 --quantize int8")
    assert as_dict(REPORT)["dtypes"] is None


MODEL = ModelOptions(TINY, device="cpu", threads=1)


def texts(count):
    count = min(count, 40)
    return PairTexts(["panda?"] * count, [f"bamboo {n}" for n in range(count)], [0] * count)


def compared(names, open_model=open_session, spare=lambda: None):
    return compare(open_session(MODEL), MODEL, names, texts, 0.01, open_model, spare)


def test_all_are_measured_on_the_same_pairs(monkeypatch):
    monkeypatch.setattr(precisions, "is_hopeless", lambda *_: False)
    found = compared(("fp32", "bf16", "int8"))
    assert [one.name for one in found.rows] == ["fp32", "bf16", "int8"]
    assert 16 <= found.pairs <= 40
    assert all(len(one.seconds) == found.rounds >= 3 for one in found.rows)
    assert found.rows[0].difference == Difference(0.0, 1.0)
    for one in found.rows[1:]:
        assert 0 < one.difference.worst < 1
        assert 0.5 < one.difference.kendall_tau <= 1


def test_a_precision_without_a_kernel_is_not_measured(monkeypatch):
    assert is_hopeless(5.1, 1.0)
    assert not is_hopeless(4.9, 1.0)
    monkeypatch.setattr(precisions, "is_hopeless", lambda seconds, exact: seconds != exact)
    found = compared(("fp32", "bf16"))
    assert found.rows[1].why.endswith("times as long as fp32 on this processor")
    assert found.rows[1].seconds == ()


def test_a_row_says_why_it_is_missing(monkeypatch):
    monkeypatch.setattr(precisions, "is_hopeless", lambda *_: False)

    def open_model(options):
        if options.quantize is Quantize.INT8:
            raise UsageError("--quantize int8: not available here")
        return open_session(options)

    found = compared(("fp32", "bf16", "int8"), open_model)
    assert [one.why for one in found.rows] == ["", "", "not available: --quantize int8: not available here"]
    found = compared(("fp32", "bf16"), spare=lambda: 1000)
    assert "GB for another copy of the weights, 0.0 GB are free" in found.rows[1].why
