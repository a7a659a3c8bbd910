"""`--dataset` with sets of ir_datasets that are made of local files (tests/plugins), in processes of their own."""

import json
from pathlib import Path

import pytest
from shell import TINY, json_lines, rerank, started, write_lines

PLUGINS = Path(__file__).parents[1] / "plugins"
DOCS = {f"d{n}": ("Bear" if n % 2 else "", f"panda {n} of china") for n in range(12)}
SCORED = [f"q{q} Q0 d{d} {rank} {9 - rank} run" for q in range(4) for rank, d in enumerate((q, q + 3, q + 5), 1)]


@pytest.fixture
def sets(tmp_path):
    """Runs `rerank` with the local sets, in a folder of its own."""
    folder = tmp_path / "sets"
    folder.mkdir()
    rows = [f"{key}\t{title}\t{text}" for key, (title, text) in DOCS.items()]
    (folder / "docs.tsv").write_text("\n".join(rows))
    (folder / "reports.tsv").write_text("\n".join(f"d{n}\tReport {n}\tpandas eat\tbring bamboo" for n in range(12)))
    (folder / "plain.tsv").write_text("\n".join(f"d{n}\tpanda {n}" for n in range(12)))
    (folder / "queries.tsv").write_text("\n".join(f"q{n}\twhich panda is {n}?" for n in range(5)))
    (folder / "topics.tsv").write_text("\n".join(f"q{n}\ttopic {n}\tall about it" for n in range(4)))
    (folder / "qrels.txt").write_text("".join(f"q{n} 0 d{n} 1\n" for n in range(4)) + "q0 0 d3 0\nq0 1 d3 1\n")
    (folder / "scored.trec").write_text("\n".join(SCORED) + "\n")
    env = {
        "PYTHONPATH": str(PLUGINS), "LOCAL_SETS": str(folder), "XDG_STATE_HOME": str(tmp_path / "state"),
        "IR_DATASETS_HOME": str(tmp_path / "home"),
    }  # fmt: skip

    def run(*args, **settings):
        return rerank(*args, env=env, cwd=tmp_path, afresh=False, **settings)

    run.env = env
    return run


def as_files(folder):
    """The set `pandas/test` as files."""
    corpus = [{"doc_id": key, "title": title, "text": text} for key, (title, text) in DOCS.items()]
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"which panda is {n}?"} for n in range(5)])
    write_lines(folder / "scored.trec", SCORED)
    return ["--run", "scored.trec", "--queries", "queries.jsonl", "--corpus", "corpus.jsonl"]


@pytest.mark.slow
def test_a_set_is_answered_measured_and_recognised_like_the_same_files(sets, tmp_path):
    asked = ["run", "--dataset", "pandas/test", "--measures", "nDCG@10", "-m", TINY, "-o", "out.jsonl"]
    ended = sets(*asked)
    assert ended.code == 0, ended.err
    assert "5 queries and 12 documents by id" in ended.err
    assert "4 judged queries" in ended.err
    files = rerank("run", *as_files(tmp_path), "-m", TINY, "-o", "files.jsonl", cwd=tmp_path)
    assert files.code == 0, files.err
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "files.jsonl").read_bytes()
    assert "already complete" in sets(*asked).err
    with (tmp_path / "sets" / "queries.tsv").open("a") as queries:
        queries.write("\nq9\tanother")
    changed = sets(*asked)
    assert (changed.code, "exists already" in changed.complaint) == (6, True)


@pytest.mark.slow
def test_a_killed_run_continues_and_notices_another_set(sets, tmp_path):
    flags = ["--dataset", "pandas/test", "--chunk-pairs", "3", "--commit-interval", "0", "-m", TINY]
    whole = sets("run", *flags, "-o", "whole.jsonl")
    assert whole.code == 0, whole.err
    out = tmp_path / "out.jsonl"
    with started("run", *flags, "-o", out, env=sets.env) as process:
        while not Path(f"{out}.checkpoint").exists() and process.poll() is None:
            pass
        process.kill()
    if not out.exists():
        (tmp_path / "sets" / "queries.tsv").write_text("\n".join(f"q{n}\tother words {n}?" for n in range(5)))
        changed = sets("run", *flags, "-o", out)
        assert (changed.code, "Fix: --restart" in changed.complaint) == (6, True)
        (tmp_path / "sets" / "queries.tsv").write_text("\n".join(f"q{n}\twhich panda is {n}?" for n in range(5)))
    ended = sets("run", *flags, "-o", out)
    assert ended.code == 0, ended.err
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_or_bm25_takes_the_place_of_the_scored_documents(sets, tmp_path):
    write_lines(tmp_path / "mine.trec", ["q1 Q0 d7 1 2 mine"])
    own = sets("run", "--dataset", "pandas/unranked", "--run", "mine.trec", "--skip-unlisted", "-q", "-m", TINY)
    assert own.code == 0, own.err
    assert [(a["id"], [r["document"]["doc_id"] for r in a["results"]]) for a in own.records] == [("q1", ["d7"])]
    found = sets("run", "--dataset", "pandas/unranked", "--first-stage", "bm25", "--depth", "2", "-q", "-m", TINY)
    assert found.code == 0, found.err
    assert [len(answer["results"]) for answer in found.records] == [2] * 5
    assert "d3" in [r["document"]["doc_id"] for r in found.records[3]["results"]]
    lacking = sets("run", "--dataset", "pandas/unranked", "-m", TINY)
    assert (lacking.code, lacking.complaint) == (
        2,
        "rerank: --dataset pandas/unranked: has no scored documents (first stage). Fix: --run RUN; rerank run has "
        "--first-stage bm25 too",
    )


@pytest.mark.slow
def test_documents_of_other_types_have_their_default_text_or_the_named_fields(sets):
    def texts(*flags):
        ended = sets(
            "run", "--dataset", "reports", "--limit", "1", "--depth", "1", *flags, "-q", "--echo-query", "-m", TINY
        )
        assert ended.code == 0, ended.err
        (answer,) = ended.records
        return answer["query"], answer["results"][0]["document"]

    query, document = texts()
    assert (query, document["text"]) == ("topic 0", "pandas eat bring bamboo")
    assert "raw" not in document
    assert texts("--query-field", "narrative")[0] == "all about it"
    checked = {
        fields: json.loads(sets("check", "--dataset", "reports", "--depth", "1", "--json", "-m", TINY, *fields).out)
        for fields in ((), ("--text-field", "advice"))
    }
    assert checked[()]["tokens"] > checked[("--text-field", "advice")]["tokens"]


@pytest.mark.slow
def test_judgements_of_a_set_measure_mine_and_train(sets, tmp_path):
    assert sets("run", "--dataset", "pandas/test", "-m", TINY, "--no-documents", "-o", "out.jsonl").code == 0
    measured = sets("eval", "out.jsonl", "--dataset", "pandas/test", "--measures", "R@3", "--json")
    assert measured.code == 0, measured.err
    assert json.loads(measured.out)["queries"] == 4
    mined = sets("mine", "out.jsonl", "--dataset", "pandas/test")
    assert mined.code == 0, mined.err
    groups = json_lines(mined.out)
    assert [(g["query"], g["pos"]) for g in groups][1] == ("which panda is 1?", ["Bear panda 1 of china"])
    flags = ["--max-steps", "1", "--batch-groups", "2", "--group-size", "2", "-m", TINY, "-o", "trained"]
    trained = sets("train", "--dataset", "pandas/test", *flags)
    assert trained.code == 0, trained.err
    assert (tmp_path / "trained" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        (["run", "--dataset", "pandas/tset"], 2, "ir_datasets has no set of this name. Fix: pandas/test"),
        (["run", "--dataset", "zzzzz"], 2, "Fix: a name of https://ir-datasets.com, like beir/scifact/test"),
        (
            ["run", "--dataset", "pandas"],
            2,
            "has no queries. Fix: a part of it: pandas/away, pandas/queries, pandas/test",
        ),
        (["run", "--dataset", "pandas/queries"], 2, "--dataset pandas/queries: has no documents."),
        (["run", "--dataset", "pandas/away"], 4, "cannot be downloaded or read (no route to the server)"),
        (["run", "--dataset", "pandas/unjudged", "--measures", "RR"], 2, "--measures needs --qrels FILE"),
        (["eval", "out.jsonl", "--dataset", "pandas/unjudged"], 2, "has no judgements (qrels). Fix: --qrels FILE"),
        (["train", "--dataset", "pandas/unjudged"], 2, "has no judgements (qrels). Fix: --qrels FILE"),
    ],
)
def test_what_a_set_lacks_is_one_line(sets, args, code, complaint):
    flags = {"run": ["-m", TINY, "-o", "out.jsonl"], "train": ["-m", TINY, "-o", "trained"]}.get(args[0], [])
    ended = sets(*args, *flags)
    assert (ended.code, ended.out) == (code, b""), ended.err
    assert complaint in ended.complaint


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["run", "in.jsonl", "--dataset", "x"], "INPUT and --dataset were both given (got in.jsonl)"),
        (["run", "--dataset", "x", "--beir", "dir"], "--beir does not go with --dataset"),
        (["run", "--dataset", "x", "--queries", "q"], "--queries does not go with --dataset"),
        (["run", "--dataset", "x", "--index-dir", "d"], "--index-dir does not go with --dataset"),
        (["run", "--dataset", "x", "--split", "dev"], "--split needs --beir DIR"),
        (["mine", "out.jsonl", "--dataset", "x", "--corpus", "c"], "--corpus does not go with --dataset"),
        (["eval", "out.jsonl", "--dataset", "x", "--qrels", "q"], "--qrels and --dataset both have judgements"),
        (["train", "in.jsonl", "--dataset", "x", "-o", "t"], "INPUT and --dataset were both given (got in.jsonl)"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(tmp_path, args, complaint):
    ended = rerank(*args, cwd=tmp_path)
    assert (ended.code, ended.out) == (2, b"")
    assert complaint in ended.complaint


def test_without_the_library_one_line_says_what_to_install(tmp_path):
    (tmp_path / "ir_datasets.py").write_text("raise ImportError('as if it were not installed')\n")
    ended = rerank("run", "--dataset", "x", "-o", tmp_path / "out.jsonl", env={"PYTHONPATH": str(tmp_path)})
    assert (ended.code, ended.complaint) == (
        2,
        "rerank: --dataset needs ir_datasets. Fix: pip install 'rerank-cli[datasets]'",
    )
