"""Candidates by id, as a shell asks for them."""

import json

import pytest
from shell import TINY, rerank, write_lines


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path / "corpus.jsonl", [{"_id": f"d{n}", "title": "t", "text": f"panda {n}"} for n in range(6)])
    write_lines(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": f"which panda is {n}?"} for n in range(2)])
    write_lines(tmp_path / "bm25.trec", [f"q{n % 2} Q0 d{n} 1 {9 - n} bm25" for n in range(6)])
    return tmp_path


def test_a_beir_folder_and_a_run_become_a_reranked_run(folder):
    flags = ["--run", folder / "bm25.trec", "--beir", folder, "--sort", "--depth", "2", "--format", "trec"]
    ended = rerank("run", *flags, "-m", "mini", "-o", folder / "ce.trec")
    assert ended.code == 0, ended.err
    rows = [line.split() for line in (folder / "ce.trec").read_text().splitlines()]
    assert [(row[0], row[3]) for row in rows] == [("q0", "1"), ("q0", "2"), ("q1", "1"), ("q1", "2")]
    assert {row[2] for row in rows} == {"d0", "d1", "d2", "d3"}
    assert "a TREC run, sorted, 2 queries and 6 documents by id" in ended.err


def test_check_reads_the_same_flags(folder):
    flags = ["--run", folder / "bm25.trec", "--queries", folder / "queries.jsonl", "--corpus", folder / "corpus.jsonl"]
    ended = rerank("check", *flags, "--json", "-m", "mini")
    assert ended.code == 3
    found = json.loads(ended.out)
    assert (found["pairs"], found["rejected"]) == (4, {"query_returned": 2})


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        (["--run", "bm25.trec"], 2, "--run bm25.trec: has only ids, and the texts are missing. Fix: --queries FILE"),
        (["--run", "bm25.trec", "--queries", "queries.jsonl"], 2, "Fix: --corpus PATH"),
        (["in.jsonl", "--run", "bm25.trec", "--beir", "."], 2, "INPUT and --run were both given (got in.jsonl)"),
        (["in.jsonl", "--depth", "3"], 2, "--depth needs --run"),
        (["in.jsonl", "--corpus", "c.jsonl"], 2, "--corpus needs --run"),
        (["in.jsonl", "--skip-unlisted"], 2, "--skip-unlisted needs --run"),
        (["--run", "bm25.trec", "--beir", "nowhere"], 4, "nowhere: is not a folder"),
        (["--run", "bm25.trec", "--beir", "empty"], 4, "empty: has no corpus.jsonl"),
        (["--run", "none.trec", "--beir", "."], 4, "none.trec: there is no such file"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(folder, flags, code, complaint):
    (folder / "empty").mkdir()
    ended = rerank("run", *flags, "-o", "out.jsonl", cwd=folder)
    assert (ended.code, ended.out) == (code, b"")
    assert complaint in ended.complaint


@pytest.mark.parametrize(
    ("flags", "answered"),
    [
        (["--queries", "queries.jsonl", "--corpus", "corpus.jsonl"], ["q1", "q0", "q2", "q3"]),
        (["--queries", "queries.jsonl", "--beir", ".", "--split", "dev"], ["q1", "q0", "q2", "q3"]),
        (["--queries", "queries.jsonl", "--corpus", "corpus.jsonl", "--skip-unlisted"], ["q1"]),
        (["--beir", "."], ["q1"]),
        (["--beir", ".", "--split", "dev"], ["q1", "q3"]),
        (["--beir", ".", "--split", "dev", "--skip-unlisted"], ["q1"]),
        (["--beir", ".", "--split", "train"], ["q1"]),
        (["--beir", "flag"], ["q1", "q0"]),
    ],
)
def test_queries_that_the_run_does_not_name_are_answered_if_they_are_asked_for(folder, flags, answered):
    write_lines(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"which panda is {n}?"} for n in range(4)])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq3\td1\t1\n")
    (folder / "flag").mkdir()
    (folder / "flag" / "corpus.jsonl").symlink_to(folder / "corpus.jsonl")
    write_lines(folder / "flag" / "test_queries.jsonl", [{"id": f"q{n}", "text": "which?"} for n in range(2)])
    write_lines(folder / "one.trec", ["q1 Q0 d1 1 2 bm25"])
    ended = rerank("run", "--run", "one.trec", *flags, "-m", TINY, cwd=folder)
    assert [(answer["id"], len(answer["results"])) for answer in ended.records] == [
        (name, int(name == "q1")) for name in answered
    ]
    assert ("without candidates" in ended.complaint) == (len(answered) > 1)
