"""Queries without candidates in whole runs: an empty answer, counted, or a bad record if candidates are required."""

from dataclasses import replace

import orjson
import pyarrow.parquet as pq
import pytest
from instant import InstantSession, Killed, config, go, kill
from test_cascade import SmallSession

from rerank_cli.choices import Fuse, OnError, OutputFormat, Resume
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import InputError, RefusedError
from rerank_cli.evaluation.evaluate import Asked, worked_out
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.formats import AnswerOptions, ById, InputOptions
from rerank_cli.formats.runs.rank_comparison import compare_ranks
from rerank_cli.formats.runs.run_file import RunFile
from rerank_cli.ranking import Fusion
from rerank_cli.run import work
from rerank_cli.run.job import run
from rerank_cli.run.options import Cascade

DOCUMENTS = [{"id": f"d{n}", "text": f"document {n}", "score": 5 - n} for n in range(4)]
SHAPES = {
    "rerank": ({"id": "q1", "query": "a"}, "documents"),
    "candidates": ({"query": {"qid": "q1", "text": "a"}}, "candidates"),
    "score": ({"id": "q1", "text_1": "a"}, "text_2"),
    "hits": ({"id": "q1", "query": "a", "hits": {"hits": []}}, None),
}


def write(path, *records):
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def mixed(tmp_path):
    """Queries with candidates at every third place, none at the others, also at both ends."""
    records = [{"id": f"q{n}", "query": f"query {n}", "documents": DOCUMENTS if n % 3 == 1 else []} for n in range(30)]
    return write(tmp_path / "in.jsonl", *records)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_is_an_empty_list(tmp_path, shape):
    record, documents = SHAPES[shape]
    given = write(tmp_path / "in.jsonl", record | ({documents: []} if documents else {}))
    summary, _ = go(config(given, tmp_path / "out.jsonl"))
    (answer,) = lines(tmp_path / "out.jsonl")
    assert (answer["id"], answer["data" if shape == "score" else "results"]) == ("q1", [])
    assert answer["usage"] == {"total_tokens": 0}
    assert (summary.stats.records, summary.stats.pairs, summary.stats.empty, summary.stats.rejected) == (1, 0, 1, 0)
    assert "1 query without candidates" in summary.line()
    assert summary.as_json()["queries_without_candidates"] == 1


def test_training_data_without_passages_is_written_as_it_was(tmp_path):
    record = {"query": "q", "pos": [], "neg": []}
    given = write(tmp_path / "in.jsonl", {"query": "q", "pos": ["a"], "neg": []}, record)
    go(config(given, tmp_path / "out.jsonl"))
    assert lines(tmp_path / "out.jsonl")[1] == record | {"pos_scores": [], "neg_scores": []}


@pytest.mark.parametrize(
    ("format", "content"),
    [
        (OutputFormat.PAIRS, b""),
        (OutputFormat.TREC, b""),
        (OutputFormat.MSMARCO, b""),
        (OutputFormat.BEIR, b'{\n"q1":{},\n"q2":{}\n}\n'),
    ],
)
def test_a_run_file_has_no_line_for_it(tmp_path, format, content):
    given = write(tmp_path / "in.jsonl", *({"id": name, "query": "a", "documents": []} for name in ("q1", "q2")))
    go(config(given, tmp_path / "out", format=format))
    assert (tmp_path / "out").read_bytes() == content


@pytest.mark.parametrize("format", [OutputFormat.FLAGEMBEDDING, OutputFormat.OPENAI_BATCH])
def test_objects_of_other_formats_have_an_empty_member(tmp_path, format):
    body = {"query": "a", "documents": []}
    given = write(tmp_path / "in.jsonl", {"custom_id": "q1", "url": "/v1/rerank", "body": body})
    go(config(given, tmp_path / "out", format=format))
    found = orjson.loads((tmp_path / "out").read_bytes())
    if format is OutputFormat.FLAGEMBEDDING:
        assert found["search_results"] == {"q1": {}}
    else:
        assert (found["error"], found["response"]["body"]["results"]) == (None, [])


@pytest.mark.parametrize(("format", "rows"), [(OutputFormat.API, 30), (OutputFormat.PAIRS, 40)])
def test_parquet_has_a_row_with_an_empty_list_or_no_row(mixed, tmp_path, format, rows):
    go(config(mixed, tmp_path / "out.parquet", format=format))
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(table) == rows
    if format is OutputFormat.API:
        assert [len(row["results"]) for row in table] == [4 if n % 3 == 1 else 0 for n in range(30)]


@pytest.mark.parametrize("format", [OutputFormat.API, OutputFormat.PAIRS])
def test_parquet_of_nothing_but_such_queries_is_a_table(tmp_path, format):
    given = write(tmp_path / "in.jsonl", {"query": "a", "documents": []})
    go(config(given, tmp_path / "out.parquet", format=format))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == (format is OutputFormat.API)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_run_that_was_killed_goes_on(mixed, tmp_path, name, at):
    whole, _ = go(config(mixed, tmp_path / f"whole-{name}"))
    kill(config(mixed, tmp_path / name), at)
    resumed, _ = go(config(mixed, tmp_path / name))
    assert resumed.stats.counts() == whole.stats.counts()
    assert resumed.stats.empty == 20
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def test_counts_of_a_run_with_candidates_are_what_they_were(tmp_path):
    summary, _ = go(config(write(tmp_path / "in.jsonl", {"query": "a", "documents": ["b"]}), tmp_path / "out.jsonl"))
    assert "empty" not in summary.stats.counts()
    assert "without candidates" not in summary.line()


@pytest.mark.parametrize("fusion", [Fusion(Fuse.RRF), Fusion(Fuse.WEIGHTED), Fusion(min_score=0.5)])
@pytest.mark.parametrize("format", [OutputFormat.API, OutputFormat.TREC])
def test_there_is_nothing_to_fuse(mixed, tmp_path, fusion, format):
    answers = AnswerOptions("instant", fused=fusion.kind is not None)
    summary, _ = go(config(mixed, tmp_path / "out", format=format, fusion=fusion, answers=answers))
    assert (summary.stats.records, summary.stats.empty) == (30, 20)


def test_a_cascade_leaves_them_alone(mixed, tmp_path):
    sessions = {"instant": InstantSession(), "small": SmallSession()}
    plan = config(mixed, tmp_path / "out.jsonl", cascade=Cascade(ModelOptions("small"), 2))
    summary, _ = run(plan, lambda options: sessions[options.name])
    assert [len(answer["results"]) for answer in lines(tmp_path / "out.jsonl")] == [0, 2, 0] * 10
    assert summary.cascade.requests == 10


def test_a_cache_has_nothing_to_keep_of_them(mixed, tmp_path):
    for name in ("one", "two"):
        summary, _ = go(config(mixed, tmp_path / name, cache=str(tmp_path / "cache")))
    assert (summary.cache.misses, summary.stats.empty) == (0, 20)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("on_error", [OnError.FAIL, OnError.SKIP, OnError.EMIT])
def test_they_are_bad_records_if_candidates_are_required(mixed, tmp_path, on_error):
    plan = config(mixed, tmp_path / "out.jsonl", on_error=on_error)
    plan = replace(plan, input=replace(plan.input, require_candidates=True))
    plan = replace(plan, output=replace(plan.output, keep_errors=on_error is OnError.EMIT))
    if on_error is OnError.FAIL:
        with pytest.raises(InputError, match=r"in\.jsonl:1: the query has no candidates"):
            go(plan)
        return
    summary, _ = go(plan)
    assert (summary.stats.rejected, summary.stats.empty) == (20, 0)
    found = lines(tmp_path / "out.jsonl")
    assert len(found) == (10 if on_error is OnError.SKIP else 30)
    assert on_error is OnError.SKIP or found[0]["error"]["code"] == "no_candidates"


def test_they_count_in_measures(mixed, tmp_path):
    (tmp_path / "qrels").write_text("q0 0 d0 1\nq1 0 d0 1\nq1 0 d1 1\n")
    measures = QrelsOptions(str(tmp_path / "qrels"), "R@10")
    summary, _ = go(config(mixed, tmp_path / "out.jsonl", qrels=measures))
    assert summary.evaluation.after.means == {"R@10": 0.5}
    for path in ("out.jsonl", "out.beir"):
        format = OutputFormat.BEIR if path == "out.beir" else OutputFormat.API
        go(config(mixed, tmp_path / path, format=format, overwrite=True))
        asked = Asked(str(tmp_path / path), str(tmp_path / "qrels"), None, "R@10")
        assert worked_out(asked, print).after.means == {"R@10": 0.5}


def test_they_are_read_back(mixed, tmp_path):
    go(config(mixed, tmp_path / "out.jsonl"))
    with_input = list(compare_ranks(RunFile(str(tmp_path / "out.jsonl")), None))
    assert [len(query.results) for query in with_input] == [0, 4, 0] * 10


@pytest.fixture
def by_id(tmp_path):
    write(tmp_path / "corpus.jsonl", *({"_id": document["id"], "text": document["text"]} for document in DOCUMENTS))
    write(tmp_path / "queries.jsonl", *({"_id": f"q{n}", "text": f"query {n}"} for n in range(5)))
    return ById(str(tmp_path / "queries.jsonl"), str(tmp_path / "corpus.jsonl"))


RUNS = {
    "top_ranked": b'{"query-id": "q0", "corpus-ids": []}\n{"query-id": "q2", "corpus-ids": ["d0", "d1"]}\n',
    "beir": b'{"q0": {}, "q2": {"d0": 2.5, "d1": 1.5}}',
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_ids_may_name_none(tmp_path, by_id, name):
    (tmp_path / "run").write_bytes(RUNS[name])
    plan = replace(config("", tmp_path / "out.jsonl"), input=InputOptions((str(tmp_path / "run"),), by_id=by_id))
    summary, _ = go(plan)
    found = [(answer["id"], len(answer["results"])) for answer in lines(tmp_path / "out.jsonl")]
    assert (found, summary.stats.empty) == ([("q0", 0), ("q2", 2)], 1)
    required = replace(plan, input=replace(plan.input, require_candidates=True), on_error=OnError.SKIP)
    summary, _ = go(replace(required, output=replace(plan.output, path=str(tmp_path / "strict.jsonl"))))
    assert (summary.stats.rejected, summary.stats.empty) == (1, 0)
    assert lines(tmp_path / "strict.jsonl")[0]["id"] == "q2"


def unlisted(tmp_path, by_id, name="out", run=("q4", "q1"), **more):
    """A run over two of the five queries, of which the others are answered too."""
    (tmp_path / "run").write_text("".join(f"{q} Q0 d{d} 1 {9 - d} t\n" for q in run for d in range(2)))
    options = {"sort": more.pop("sort", False), "require_candidates": more.pop("require_candidates", False)}
    plan = replace(config("", tmp_path / name, **more), chunk_pairs=1)
    return replace(plan, input=InputOptions((str(tmp_path / "run"),), by_id=by_id, **options))


@pytest.mark.parametrize(
    ("format", "found"),
    [
        (OutputFormat.API, [("q4", 2), ("q1", 2), ("q0", 0), ("q2", 0), ("q3", 0)]),
        (OutputFormat.BEIR, [("q4", 2), ("q1", 2), ("q0", 0), ("q2", 0), ("q3", 0)]),
        (OutputFormat.TREC, [("q4", 2), ("q1", 2)]),
    ],
)
def test_queries_that_a_run_does_not_name_are_answered_after_the_others(tmp_path, by_id, format, found):
    summary, _ = go(unlisted(tmp_path, replace(by_id, answer_unlisted=True), format=format))
    if format is OutputFormat.API:
        answers = [(answer["id"], len(answer["results"])) for answer in lines(tmp_path / "out")]
    elif format is OutputFormat.BEIR:
        answers = [(name, len(found)) for name, found in orjson.loads((tmp_path / "out").read_bytes()).items()]
    else:
        rows = [line.split()[0] for line in (tmp_path / "out").read_text().splitlines()]
        answers = [(name, rows.count(name)) for name in dict.fromkeys(rows)]
    assert answers == found
    assert (summary.stats.records, summary.stats.empty) == (5, 3)
    go(unlisted(tmp_path, by_id, "skipped"))
    assert [answer["id"] for answer in lines(tmp_path / "skipped")] == ["q4", "q1"]


def test_queries_that_a_run_does_not_name_are_bad_records_if_candidates_are_required(tmp_path, by_id):
    plan = unlisted(tmp_path, replace(by_id, answer_unlisted=True), require_candidates=True)
    with pytest.raises(InputError, match=r"queries\.jsonl:1: the query has no candidates in the run"):
        go(plan)
    summary, _ = go(replace(plan, on_error=OnError.SKIP, resume=Resume.NEVER))
    assert (summary.stats.records, summary.stats.rejected, summary.stats.empty) == (5, 3, 0)


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("at", range(1, 5))
def test_a_run_that_was_killed_at_such_queries_goes_on(tmp_path, by_id, monkeypatch, sort, at):
    by_id, run = replace(by_id, answer_unlisted=True), ("q4", "q1", "q4") if sort else ("q4", "q1")
    rows = [f"{q} Q0 d{n} 1 {9 - n} t\n" for n, q in enumerate(run)]
    whole, plan = (unlisted(tmp_path, by_id, name, sort=sort) for name in ("whole", "out"))
    (tmp_path / "run").write_text("".join(rows))
    go(whole)
    ranked, calls = work.rank_chunk, []

    def dying(*args, **named):
        calls.append(args)
        if len(calls) > at:
            raise Killed
        return ranked(*args, **named)

    monkeypatch.setattr(work, "rank_chunk", dying)
    with pytest.raises(Killed):
        go(plan)
    monkeypatch.setattr(work, "rank_chunk", ranked)
    summary, _ = go(plan)
    assert summary.stats.resumed_records == at
    assert (summary.stats.records, summary.stats.empty) == (5, 3)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_an_output_without_such_queries_is_not_taken_for_one_with_them(tmp_path, by_id):
    go(unlisted(tmp_path, by_id))
    with pytest.raises(RefusedError, match="exists already"):
        go(unlisted(tmp_path, replace(by_id, answer_unlisted=True)))
