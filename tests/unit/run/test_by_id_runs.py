"""Whole runs on candidates by id, and on pairs that are sorted first: killed, gone on with, refused, or done."""

import random
from dataclasses import replace

import orjson
import pytest
from instant import config, go, kill, names

from rerank_cli.choices import OnError, OutputFormat
from rerank_cli.errors import InputError, RefusedError, UsageError
from rerank_cli.evaluation.evaluate import Asked, worked_out
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.formats import ById, InputOptions
from rerank_cli.formats.corpus import building as corpus_building
from rerank_cli.run.checks import check
from rerank_cli.run.job import run

DOCUMENTS, QUERIES = 80, 30


def lines(rows):
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def documents():
    return [{"_id": f"d{n}", "title": f"title {n}", "text": f"text {n * n}"} for n in range(DOCUMENTS)]


def run_lines():
    rng = random.Random(3)
    return [
        f"q{q} Q0 d{d} {n} {50 - n} t"
        for q in range(QUERIES)
        for n, d in enumerate(rng.sample(range(DOCUMENTS), rng.randint(1, 6)))
    ]


@pytest.fixture
def given(tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "corpus.jsonl").write_bytes(lines(documents()))
    (folder / "queries.jsonl").write_bytes(lines({"_id": f"q{n}", "text": f"query {n}"} for n in range(QUERIES)))
    (folder / "run.trec").write_text("\n".join(run_lines()) + "\n")
    (folder / "missing.trec").write_text("\n".join(["q0 Q0 nowhere 1 99 t", *run_lines(), "q99 Q0 d1 1 1 t"]) + "\n")
    rows = run_lines()
    random.Random(4).shuffle(rows)
    (folder / "shuffled.trec").write_text("\n".join(rows) + "\n")
    pairs = [
        {"query_id": q, "query": f"query {q}", "docid": d, "text": f"text {d}"}
        for q, _, d, _, _, _ in map(str.split, rows)
    ]
    (folder / "pairs.jsonl").write_bytes(lines(pairs))
    return folder


def plan(given, written, run="run.trec", sort=False, depth=None, **more):
    by_id = ById(str(given / "queries.jsonl"), str(given / "corpus.jsonl"), depth)
    files = InputOptions((str(given / run),), sort=sort, by_id=None if run == "pairs.jsonl" else by_id)
    return replace(config(given / run, written, **more), input=files)


@pytest.fixture(params=[0, 1 << 30], ids=["index kept", "index in memory"])
def indexed(request, monkeypatch):
    monkeypatch.setattr(corpus_building, "SMALL_BYTES", request.param)


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize(("run", "sort"), [("run.trec", False), ("shuffled.trec", True), ("missing.trec", False)])
@pytest.mark.parametrize("at", [1, 9])
@pytest.mark.parametrize("format", [OutputFormat.API, OutputFormat.TREC])
def test_a_run_that_was_killed_goes_on_and_writes_the_same_bytes(given, tmp_path, run, sort, at, format):
    options = {"run": run, "sort": sort, "format": format, "on_error": OnError.SKIP}
    _, whole = go(plan(given, tmp_path / "whole.out", **options))
    kill(plan(given, tmp_path / "out", **options), at)
    summary, session = go(plan(given, tmp_path / "out", **options))
    assert session.calls == whole.calls - at
    assert summary.stats.records == QUERIES + 2 * (run == "missing.trec")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole.out").read_bytes()
    assert names(tmp_path) == ["given", "out", "whole.out"]


def test_pairs_that_are_sorted_go_on_after_kill_upon_kill(given, tmp_path):
    go(plan(given, tmp_path / "whole.jsonl", run="pairs.jsonl", sort=True))
    options = plan(given, tmp_path / "out.jsonl", run="pairs.jsonl", sort=True)
    for _ in range(4):
        kill(options, 2)
    go(options)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_run_goes_on_where_only_the_rest_of_the_corpus_changed(given, tmp_path):
    go(plan(given, tmp_path / "whole.jsonl"))
    options = plan(given, tmp_path / "out.jsonl")
    kill(options, 4)
    with (given / "corpus.jsonl").open("ab") as file:
        file.write(lines([{"_id": "more", "text": "t"}]))
    go(options)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(("name", "old", "new"), [("corpus", b"title", b"Title"), ("queries", b"query", b"Query")])
def test_a_run_is_not_gone_on_with_where_texts_that_are_done_changed(given, tmp_path, name, old, new):
    options = plan(given, tmp_path / "out.jsonl")
    kill(options, 4)
    path = given / f"{name}.jsonl"
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(RefusedError, match="are not those already processed"):
        go(options)


def test_ties_of_a_run_are_measured_in_the_same_pass_as_by_eval(given, tmp_path):
    rng = random.Random(9)
    rows = [f"q{q} Q0 d{d} 1 {rng.randrange(3)} t" for q in range(QUERIES) for d in rng.sample(range(DOCUMENTS), 8)]
    (given / "ties.trec").write_text("\n".join(rows) + "\n")
    (tmp_path / "qrels").write_text("".join(f"q{q} 0 {rows[8 * q + 5].split()[2]} 1\n" for q in range(QUERIES)))
    asked = QrelsOptions(str(tmp_path / "qrels"), "nDCG@10,RR@10,AP,Judged@5,Accuracy,Compat")
    summary, _ = go(plan(given, tmp_path / "out", run="ties.trec", qrels=asked))
    found = worked_out(Asked(str(tmp_path / "out"), asked.path, str(given / "ties.trec"), asked.measures), print)
    assert summary.evaluation.as_json(per_query=True) == found.as_json(per_query=True)


def test_rows_with_a_score_and_a_rank_are_by_score_in_the_same_pass_and_by_rank_for_eval(given, tmp_path):
    rows = [{"qid": "q0", "docid": f"d{n}", "score": n, "rank": n} for n in range(1, 4)]
    (given / "both.jsonl").write_bytes(lines(rows))
    (tmp_path / "qrels").write_text("q0 0 d3 1\n")
    summary, _ = go(plan(given, tmp_path / "out", run="both.jsonl", qrels=QrelsOptions(str(tmp_path / "qrels"), "RR")))
    found = worked_out(Asked(str(given / "both.jsonl"), str(tmp_path / "qrels"), measures="RR"), print)
    assert (summary.evaluation.before.means, found.after.means) == ({"RR": 1.0}, {"RR": 1 / 3})


def test_another_depth_is_another_run(given, tmp_path):
    kill(plan(given, tmp_path / "out.jsonl", depth=3), 2)
    with pytest.raises(RefusedError, match="depth 3 → 2"):
        go(plan(given, tmp_path / "out.jsonl", depth=2))


def test_an_output_that_is_complete_is_known_until_a_text_changes(given, tmp_path):
    options = plan(given, tmp_path / "out.jsonl")

    def again():
        return run(options, lambda _: pytest.fail("the model was loaded"), lambda _: "r1")[0].nothing_to_do

    go(options)
    assert again()
    path = given / "corpus.jsonl"
    path.write_bytes(path.read_bytes().replace(b"title", b"Title"))
    with pytest.raises(RefusedError, match="exists already"):
        again()


def test_missing_ones_end_a_run_before_anything_is_scored(given, tmp_path):
    with pytest.raises(
        InputError, match=r"missing.trec:1: document 'nowhere' is not in .*Fix: --on-error skip, or emit"
    ):
        go(plan(given, tmp_path / "out.jsonl", run="missing.trec"))


def test_missing_ones_are_skipped_and_kept_in_the_file_of_errors(given, tmp_path):
    options = {"run": "missing.trec", "on_error": OnError.SKIP, "errors": str(tmp_path / "errors.jsonl")}
    summary, _ = go(plan(given, tmp_path / "out.jsonl", **options))
    errors = [orjson.loads(line) for line in (tmp_path / "errors.jsonl").read_bytes().splitlines()]
    assert [(error["code"], error["line"]) for error in errors] == [
        ("missing_document", 1),
        ("missing_query", len(run_lines()) + 2),
    ]
    assert summary.stats.rejected == 2
    go(plan(given, tmp_path / "without.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "without.jsonl").read_bytes()


def test_missing_ones_are_emitted_where_they_are_met(given, tmp_path):
    options = plan(given, tmp_path / "out.jsonl", run="missing.trec", on_error=OnError.EMIT)
    options = replace(options, output=replace(options.output, keep_errors=True))
    go(options)
    answers = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    codes = [answer["error"]["code"] if "error" in answer else None for answer in answers]
    assert codes == ["missing_document", *[None] * QUERIES, "missing_query"]
    assert [answer["id"] for answer in answers] == ["q0", *[f"q{n}" for n in range(QUERIES)], "q99"]


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "run.trec"])
def test_no_output_takes_the_place_of_what_is_read(given, name):
    with pytest.raises(RefusedError, match="would be written while it is read"):
        check(
            plan(
                given,
                given / name,
                format=OutputFormat.TREC if name == "run.trec" else OutputFormat.API,
                overwrite=True,
            )
        )


def test_sorting_is_for_rows_of_pairs(given, tmp_path):
    options = plan(given, tmp_path / "out.jsonl", run="pairs.jsonl", sort=True)
    with pytest.raises(UsageError, match="--sort groups rows of pairs"):
        go(replace(options, input=replace(options.input, shape="rerank")))
