"""`--cache` and `--cascade` in real processes, with small models of random weights."""

import json
from pathlib import Path

from shell import TINY, is_one_line, rerank, run_tiny, write_lines

SMALL = str(Path(TINY).with_name("xlm-roberta"))
RECORDS = [{"id": n, "query": f"question {n}", "documents": [f"answer {n} {i}" for i in range(6)]} for n in range(5)]


def test_a_second_run_with_cache_and_cascade_scores_nothing_and_answers_the_same(tmp_path):
    given = write_lines(tmp_path / "in.jsonl", RECORDS)
    flags = ["--cache", tmp_path / "cache.db", "--cascade", f"{SMALL}:2", "--summary", tmp_path / "summary.json"]
    first = run_tiny(given, *flags)
    assert (first.code, first.err) == (0, "")
    assert [len(record["results"]) for record in first.records] == [2] * 5
    filled = json.loads((tmp_path / "summary.json").read_bytes())
    assert filled["cache"]["hits"] == 0
    assert filled["cascade"]["left_out"] == 20
    assert filled["cascade"]["sampled"] == 4
    second = run_tiny(given, *flags)
    assert second.out == first.out
    spared = json.loads((tmp_path / "summary.json").read_bytes())
    assert (spared["cache"]["misses"], spared["rows"]) == (0, 0)
    assert spared["cache"]["hits"] == filled["cache"]["entries"] == 30 + 10 + 16
    assert spared["cascade"] | {"seconds": 0} == filled["cascade"] | {"seconds": 0}


def test_a_cache_that_is_something_else_is_exit_6_before_the_model_is_looked_for(tmp_path):
    (tmp_path / "cache.db").write_bytes(b"dear to somebody")
    given = write_lines(tmp_path / "in.jsonl", RECORDS)
    ended = rerank("run", given, "-q", "-m", "/no/such/model", "--cache", tmp_path / "cache.db")
    assert ended.code == 6
    assert is_one_line(ended.err)
    assert "cache.db: not a score cache of rerank" in ended.err
    assert (tmp_path / "cache.db").read_bytes() == b"dear to somebody"


def test_a_cascade_that_keeps_no_number_is_exit_2(tmp_path):
    given = write_lines(tmp_path / "in.jsonl", RECORDS)
    ended = rerank("run", given, "-q", "-m", TINY, "--cascade", "mini")
    assert ended.code == 2
    assert is_one_line(ended.err)
    assert "expected MODEL:KEEP" in ended.err
