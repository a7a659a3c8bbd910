"""Candidates by `--first-stage bm25`, as a shell asks for them."""

import subprocess
import sys

import pytest
from pages import ROOT
from shell import TINY, json_lines, rerank, run_tiny, started, write_lines

SCIFACT = ROOT / "sample_data" / "scifact"
ASK = ["--beir", SCIFACT, "--first-stage", "bm25", "--depth", "5"]


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path / "corpus.jsonl", [{"_id": f"d{n}", "title": "t", "text": f"panda {n}"} for n in range(6)])
    write_lines(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": f"which is {n}?"} for n in range(8)])
    return tmp_path


def test_queries_and_texts_become_a_reranked_and_measured_run(tmp_path):
    flags = ["--measures", "nDCG@10", "--format", "trec", "-m", TINY]
    ended = rerank("run", *ASK, *flags, "-o", tmp_path / "out.trec")
    assert ended.code == 0, ended.err
    assert "BM25 over 230 documents for 10 queries" in ended.err
    assert "10 judged queries" in ended.err
    assert (tmp_path / "out.trec").read_text().count("\n") == 50
    run = tmp_path / "out.trec.bm25.trec"
    given = rerank("run", "--run", run, "--beir", SCIFACT, *flags, "-o", tmp_path / "given.trec")
    assert given.code == 0, given.err
    assert (tmp_path / "given.trec").read_bytes() == (tmp_path / "out.trec").read_bytes()
    again = rerank("run", *ASK, *flags, "-o", tmp_path / "out.trec")
    assert (again.code, "already complete" in again.err) == (0, True)
    run.unlink()
    assert "already complete" in rerank("run", *ASK, *flags, "-o", tmp_path / "out.trec").err
    changed = rerank("run", *ASK, *flags, "--bm25-k1", "1.5", "-o", tmp_path / "out.trec")
    assert (changed.code, "exists already" in changed.complaint) == (6, True)


def test_the_score_of_the_first_stage_is_that_of_a_run(folder):
    by_id = ["--queries", folder / "queries.jsonl", "--corpus", folder / "corpus.jsonl"]
    ended = run_tiny(*by_id, "--first-stage", "bm25", "--fuse", "rrf")
    assert ended.code == 0, ended.err
    answers = {answer["id"]: answer["results"] for answer in ended.records}
    assert list(answers) == [f"q{n}" for n in range(8)]
    assert [len(results) for results in answers.values()] == [1] * 6 + [0] * 2
    skipped = run_tiny(*by_id, "--first-stage", "bm25", "--skip-unlisted")
    assert [answer["id"] for answer in skipped.records] == [f"q{n}" for n in range(6)]


def test_a_run_that_was_killed_continues_with_the_same_candidates(tmp_path):
    whole = run_tiny(*ASK, "--chunk-pairs", "5", "-o", tmp_path / "whole.jsonl")
    assert whole.code == 0, whole.err
    out = tmp_path / "out.jsonl"
    with started("run", *ASK, "--chunk-pairs", "5", "--commit-interval", "0", "-m", TINY, "-o", out) as process:
        while not (out.parent / "out.jsonl.checkpoint").exists() and process.poll() is None:
            pass
        process.kill()
    run = tmp_path / "out.jsonl.bm25.trec"
    before = run.read_bytes()
    run.unlink()
    ended = rerank("run", *ASK, "--chunk-pairs", "5", "-m", TINY, "-o", out)
    assert ended.code == 0, ended.err
    assert (out.read_bytes(), run.read_bytes()) == ((tmp_path / "whole.jsonl").read_bytes(), before)


def test_shards_share_the_run(tmp_path):
    for part in ("0/2", "1/2"):
        ended = run_tiny(*ASK, "--chunk-pairs", "10", "--shard", part, "-o", tmp_path / "out.jsonl")
        assert ended.code == 0, ended.err
    assert [path.name for path in tmp_path.glob("*.bm25.trec")] == ["out.jsonl.bm25.trec"]
    merged = rerank("merge", *sorted(tmp_path.glob("out-*.jsonl")), "-o", tmp_path / "merged.jsonl")
    assert merged.code == 0, merged.err
    whole = run_tiny(*ASK, "--chunk-pairs", "10", "-o", tmp_path / "whole.jsonl")
    assert whole.code == 0
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_output_to_stdout_leaves_nothing_behind(tmp_path):
    ended = run_tiny(*ASK, env={"TMPDIR": str(tmp_path)}, afresh=True)
    assert (ended.code, len(json_lines(ended.out))) == (0, 10)
    checked = rerank("check", *ASK, "-m", TINY, env={"TMPDIR": str(tmp_path)})
    assert (checked.code, b"50" in checked.out) == (0, True), checked.err
    assert list(tmp_path.glob("rerank-*")) == []


def test_without_the_library_one_line_says_what_to_install(tmp_path):
    (tmp_path / "bm25s.py").write_text("raise ImportError('as if it were not installed')\n")
    ended = run_tiny(*ASK, "-o", tmp_path / "out.jsonl", env={"PYTHONPATH": str(tmp_path)})
    assert (ended.code, ended.complaint) == (
        2,
        "rerank: --first-stage bm25 needs bm25s. Fix: pip install 'rerank-cli[bm25]'",
    )


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--first-stage", "bm25"], "--first-stage: the texts are missing. Fix: --queries FILE"),
        (["--first-stage", "bm25", "--queries", "q.jsonl"], "Fix: --corpus PATH"),
        (["in.jsonl", "--first-stage", "bm25", "--beir", SCIFACT], "INPUT and --first-stage were both given"),
        ([*ASK, "--run", "bm25.trec"], "--run does not go with --first-stage"),
        ([*ASK, "--run-values", "ranks"], "--run-values does not go with --first-stage"),
        ([*ASK, "--sort"], "--sort does not go with --first-stage"),
        ([*ASK, "--input-format", "csv"], "--input-format is for INPUT or --run, not for --first-stage"),
        ([*ASK, "--bm25-b", "nan"], "--bm25-b"),
        ([*ASK, "-o", "out/"], "-o out/: an output folder has a file for each file of --run"),
        (["in.jsonl", "--bm25-k1", "1"], "--bm25-k1 needs --first-stage bm25"),
        (["in.jsonl", "--bm25-language", "french"], "--bm25-language needs --first-stage bm25"),
        (
            ["in.jsonl", "--measures", "nDCG@10"],
            "--measures needs --qrels FILE, or --beir DIR or --dataset ID with judgements",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(folder, flags, complaint):
    output = [] if "-o" in flags else ["-o", "out.jsonl"]
    ended = rerank("run", *flags, *output, cwd=folder)
    assert (ended.code, ended.out) == (2, b"")
    assert complaint in ended.complaint


def test_from_python_it_is_a_keyword(tmp_path):
    script = (
        "from rerank_cli import run_file\n"
        f"done = run_file([], 'out.jsonl', model={str(TINY)!r}, beir={str(SCIFACT)!r}, first_stage='bm25', depth=3)\n"
        "print(done.stats.pairs)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert ended.stdout == b"30\n"


def test_a_first_stage_of_another_name_is_refused_with_the_one_there_is(tmp_path):
    ended = rerank("run", "--beir", tmp_path, "--first-stage", "bm42", "-m", "mini", "-o", tmp_path / "out.jsonl")
    assert ended.code == 2
    assert ended.err == "rerank: --first-stage bm42: expected bm25\n"
