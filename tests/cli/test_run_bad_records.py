"""Bad records: a run fails at the first, leaves them out, or answers each in its place."""

import json

import pytest
from shell import TINY, is_one_line, json_lines, rerank, run_tiny, write_lines

GOOD = {"query": "panda", "documents": ["hi", "bear"]}
BAD = {
    "bad_json": '{"query": "q", "documents": ["a"',
    "empty_query": {"id": "e", "query": " ", "documents": ["a"]},
    "missing_query": {"id": "m", "documents": ["a"]},
    "no_candidates": {"id": "n", "query": "[bold]q[/bold]"},
    "null_text": {"id": 5, "query": "q", "documents": ["a", None]},
    "bad_utf8": b'{"query": "\xff", "documents": ["a"]}',
    "nul_bytes": b"\0\0\0\0",
}


@pytest.fixture
def mixed(tmp_path):
    """A good record, every bad one, a good record."""
    return write_lines(tmp_path / "mixed.jsonl", [{"id": "first", **GOOD}, *BAD.values(), {"id": "last", **GOOD}])


@pytest.mark.parametrize("code", BAD)
def test_the_first_bad_record_ends_the_run_before_a_model_is_loaded(tmp_path, code):
    path = write_lines(tmp_path / "in.jsonl", [GOOD, BAD[code], GOOD])
    ended = rerank("run", path, "-m", "/no/such/model", "-q", "-o", tmp_path / "out.jsonl")
    assert ended.code == 4
    assert is_one_line(ended.err)
    assert f"{path}:2: " in ended.err
    assert "Fix: --" in ended.err
    assert not list(tmp_path.glob("out.jsonl*"))


def test_skipped_records_are_left_out_and_quarantined_with_their_reason(mixed, tmp_path):
    ended = run_tiny(mixed, "--on-error", "skip", "--errors", tmp_path / "errors.jsonl")
    assert ended.code == 3
    assert [answer["id"] for answer in ended.records] == ["first", "last"]
    lines = json_lines((tmp_path / "errors.jsonl").read_bytes())
    assert [(line["path"], line["line"], line["code"]) for line in lines] == [
        (mixed, number, code) for number, code in enumerate(BAD, 2)
    ]
    assert json.loads(lines[3]["raw"]) == BAD["no_candidates"]
    assert all(line["message"] for line in lines)


def test_emitted_errors_stand_in_the_place_of_their_records(mixed):
    ended = run_tiny(mixed, "--on-error", "emit")
    assert ended.code == 3
    answers = ended.records
    assert ["error" in answer for answer in answers] == [False, *[True] * len(BAD), False]
    assert [answer["error"]["code"] for answer in answers[1:-1]] == list(BAD)
    assert [answer["error"]["line"] for answer in answers[1:-1]] == list(range(2, 2 + len(BAD)))
    assert set(answers[1]) == {"id", "error"}
    assert (answers[2]["id"], answers[5]["id"]) == ("e", 5)


def test_too_many_bad_records_end_the_run(mixed):
    ended = rerank("run", mixed, "-m", "/no/such/model", "-q", "--on-error", "skip", "--max-errors", "2")
    assert ended.code == 4
    assert is_one_line(ended.err)
    assert f"{mixed}:4: " in ended.err
    assert "--max-errors 2" in ended.err


def test_a_bad_record_deep_in_the_file_is_named_with_its_line_and_nothing_is_published(tmp_path):
    path = write_lines(tmp_path / "deep.jsonl", [*[GOOD] * 300, BAD["bad_json"], GOOD])
    flags = ["--chunk-pairs", "20", "--summary", tmp_path / "summary.json"]
    ended = run_tiny(path, "-o", tmp_path / "out.jsonl", *flags)
    assert ended.code == 4
    assert is_one_line(ended.err)
    assert f"{path}:301: " in ended.err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_table_whose_query_comes_back_later_names_both_places(tmp_path):
    rows = [{"query_id": q, "query": f"text of {q}", "docid": d, "text": d} for q, d in ("1a", "2b", "1c")]
    path = write_lines(tmp_path / "pairs.jsonl", rows)
    ended = rerank("run", path, "-m", "/no/such/model", "-q")
    assert ended.code == 4
    assert is_one_line(ended.err)
    assert f"{path}:3: " in ended.err
    assert f"{path}:1)" in ended.err


def test_a_quarantine_without_a_policy_is_a_usage_error(requests_file, tmp_path):
    ended = rerank("run", requests_file, "-m", TINY, "--errors", tmp_path / "errors.jsonl")
    assert ended.code == 2
    assert is_one_line(ended.err)
    assert not (tmp_path / "errors.jsonl").exists()
