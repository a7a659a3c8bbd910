"""`rerank bench` on a budget of a second: what it says, not how fast it is."""

import json
import signal
from pathlib import Path

import pytest
from shell import PANDA, TIMEOUT, TINY, is_one_line, rerank, started, stderr_until, write_lines

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "sample_data" / "scifact.jsonl"


def test_a_sample_is_measured_with_the_built_in_model():
    ended = rerank("bench", SAMPLE, "-m", "mini", "--seconds", "1", "--sample-pairs", "24", "--json", "--threads", "1")
    assert ended.code == 0, ended.err
    (found,) = ended.records
    assert found["sample"]["pairs"] >= 24
    assert found["sample"]["padding_ratio"] == 0.0
    assert found["machine"]["threads"] == 1
    assert found["model"]["dtype"] == "fp32"
    assert found["mfu_nominal"] > found["mfu"] > 0
    assert found["flops"]["nominal"] > found["flops"]["done"] > 0
    assert found["peak_flops"]["before"] > 0
    assert found["limit"]["what"] in {"device", "tokenizer", "reading", "writing"}
    assert found["tokens_per_second"] > found["pairs_per_second"] > 0
    assert 100 < found["whole_input"]["pairs"] < 150
    assert found["whole_input"]["seconds"] > 0
    assert 0 < found["load_seconds"] < found["first_score_seconds"]


@pytest.fixture
def given(tmp_path):
    records = [{"query": f"what is panda {n}?", "documents": ["hi", PANDA]} for n in range(40)]
    return write_lines(tmp_path / "in.jsonl", [*records, "no record"])


def test_a_table_is_for_people_and_bad_records_are_exit_3(given, tmp_path):
    ended = rerank("bench", given, "-m", TINY, "--seconds", "2", env={"TMPDIR": str(tmp_path)})
    assert ended.code == 3, ended.err
    table = ended.out.decode()
    for name in (
        "machine",
        "model",
        "sample",
        "bad records",
        "speed",
        "padding",
        "MFU",
        "limit",
        "rows",
        "whole input",
    ):
        assert f"\n{name:<13}" in f"\n{table}"
    assert "80 pairs of 41 records" in table
    assert not list(tmp_path.glob("rerank-bench-*"))


def test_precisions_are_compared_side_by_side(given):
    ended = rerank("bench", given, "-m", TINY, "--seconds", "1", "--dtypes", "bf16,int8", "--json", "--threads", "1")
    assert ended.code == 3, ended.err
    (found,) = ended.records
    assert found["batch_tokens"] is None
    assert [row["name"] for row in found["dtypes"]["rows"]] == ["fp32", "bf16", "int8"]
    assert found["dtypes"]["recommended"] in {"fp32", "bf16", "int8"}
    for row in found["dtypes"]["rows"]:
        assert row["remark"]
        assert (row["kendall_tau"] is not None) == row["available"]


def test_an_interrupt_ends_it_at_once_and_leaves_nothing_behind(given, tmp_path):
    with started("bench", given, "-m", TINY, "--seconds", "600", env={"TMPDIR": str(tmp_path)}) as process:
        stderr_until(process, "measuring")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=TIMEOUT) == -signal.SIGINT
    assert not list(tmp_path.glob("rerank-bench-*"))


@pytest.mark.parametrize(
    ("content", "flags", "code", "message"),
    [
        (b'{"query": "q", "documents": []}\n', [], 4, "no pair to score"),
        (b'{"query": "q", "documents": ["d"]}\n', ["--stride", "3"], 2, "--stride needs"),
        (b'{"query": "q", "documents": ["d"]}\n', ["--dtypes", "fp32"], 2, "nothing to compare fp32 with"),
        (b'{"query": "q", "documents": ["d"]}\n', ["--dtypes", "fp16"], 2, "no precision 'fp16'"),
        (b'{"query": "q", "documents": ["d"]}\n', ["--dtypes", "bf16", "--dtype", "fp32"], 2, "leave out --dtype"),
        (None, [], 4, "there is no such file"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, content, flags, code, message):
    path = tmp_path / "in.jsonl"
    if content is not None:
        path.write_bytes(content)
    ended = rerank("bench", path, "-m", TINY, "-q", *flags)
    assert ended.code == code
    assert is_one_line(ended.err)
    assert message in ended.err
    assert ended.out == b""


def test_figures_of_a_stream_come_without_an_estimate():
    lines = b"".join(json.dumps({"query": "q", "documents": ["d", PANDA]}).encode() + b"\n" for _ in range(20))
    ended = rerank("bench", "-m", TINY, "--seconds", "1", "--json", "-q", stdin=lines)
    assert ended.code == 0, ended.err
    (found,) = ended.records
    assert found["sample"]["pairs"] == 40
    assert found["whole_input"] is None
    assert ended.err == ""
