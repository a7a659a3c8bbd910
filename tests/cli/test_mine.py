"""`rerank mine` and training data as commands."""

import pytest
from shell import is_one_line, json_lines, rerank, run_tiny, write_lines


@pytest.fixture
def files(tmp_path):
    documents = [{"id": f"d{n}", "text": f"text {n}"} for n in range(3)]
    results = [{"index": n, "document": documents[n], "relevance_score": 0.9 - n / 10} for n in range(3)]
    output = write_lines(tmp_path / "out.jsonl", [{"id": "1", "results": results}])
    given = write_lines(tmp_path / "in.jsonl", [{"id": "1", "query": "a query", "documents": documents}])
    (tmp_path / "qrels.txt").write_text("1 0 d1 1\n")
    return output, given, str(tmp_path / "qrels.txt")


def test_what_is_mined_can_be_scored_by_a_teacher(files, tmp_path):
    output, given, qrels = files
    train = tmp_path / "train.jsonl"
    mined = rerank("mine", output, "--input", given, "--qrels", qrels, "--range", "2-10", "-o", train)
    assert (mined.code, mined.out, is_one_line(mined.err)) == (0, b"", True)
    assert "1 of 1 query, 1 positive, 1 negative," in mined.err
    scored = run_tiny(train, "--scores", "sigmoid")
    (row,) = scored.records
    assert {"query": "a query", "pos": ["text 1"], "neg": ["text 2"]}.items() <= row.items()
    assert (len(row["pos_scores"]), len(row["neg_scores"])) == (1, 1)


def test_it_writes_to_stdout_where_nothing_is_named(files):
    output, given, qrels = files
    ended = rerank("mine", output, "--input", given, "--qrels", qrels, "--format", "triplets", "-q")
    assert (ended.code, ended.err) == (0, "")
    assert [row["negative"] for row in json_lines(ended.out)] == ["text 0", "text 2"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--range", "0-5"], "--range 0-5: expected ranks from 1"),
        (["--range", "9-5"], "--range 9-5"),
        (["--scores", "--format", "triplets"], "--scores needs --format train (got triplets)"),
    ],
)
def test_flags_that_make_no_sense_are_exit_2(files, flags, message):
    output, _, qrels = files
    ended = rerank("mine", output, "--qrels", qrels, *flags)
    assert (ended.code, ended.out, is_one_line(ended.err)) == (2, b"", True)
    assert message in ended.err
