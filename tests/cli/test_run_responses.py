"""The command on responses of search engines, on queries without candidates, and on texts of several fields."""

import json
from pathlib import Path

import pytest
from shell import TINY, rerank, run_tiny, write_lines

NEIGHBOURS = Path(__file__).parents[1] / "neighbours"
RESPONSE = NEIGHBOURS / "elasticsearch.search.json"
EMPTY = [{"id": "e", "query": "q", "documents": []}, {"id": "f", "query": "q", "documents": ["a", {"text": "b"}]}]


def test_a_response_is_reranked_with_the_query_of_the_caller():
    ended = rerank("run", RESPONSE, "--query", "what is a panda?", "-m", TINY)
    (answer,) = ended.records
    assert "hits of Elasticsearch or OpenSearch" in ended.err
    hits = {hit["_id"]: hit for hit in json.loads(RESPONSE.read_text())["hits"]["hits"]}
    for result in answer["results"]:
        assert result["document"] == hits[result["id"]]
        assert result["retrieval_score"] == hits[result["id"]]["_score"]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [sorted(result) for result in answer["results"]] == [
        ["document", "id", "index", "relevance_score", "retrieval_score"]
    ] * 2


def test_a_response_comes_through_a_pipe():
    response = RESPONSE.read_bytes()
    (answer,) = run_tiny("--query", "panda", "--no-documents", stdin=response).records
    assert {result["id"] for result in answer["results"]} == {"7", "9"}


def test_hits_become_pairs_and_lines_of_a_run(tmp_path):
    args = (RESPONSE, "--query", "panda")
    rows = run_tiny(*args, "--format", "pairs").records
    assert {row["docid"]: (row["title"], row["text"]) for row in rows} == {
        "7": ("Greeting", "hi"),
        "9": ("Giant panda", "The giant panda is a bear that lives in China."),
    }
    assert sorted(row["retrieval_score"] for row in rows) == [0.2876821, 1.3862942]
    lines = run_tiny(*args, "--format", "trec").out.decode().splitlines()
    assert {line.split()[2] for line in lines} == {"7", "9"}
    assert run_tiny(*args, "-o", tmp_path / "out.parquet").code == 0


def test_an_answer_to_hits_is_viewed_and_measured(tmp_path):
    run_tiny(RESPONSE, "--query", "panda", "-o", tmp_path / "out.jsonl")
    shown = rerank("view", tmp_path / "out.jsonl").out.decode()
    assert "The giant panda" in shown
    (tmp_path / "qrels").write_text("rerank-1 0 9 1\n")
    found = rerank("eval", tmp_path / "out.jsonl", "--qrels", tmp_path / "qrels", "--measures", "R@10", "--json")
    assert found.code == 0
    (run,) = json.loads((tmp_path / "out.jsonl").read_text())["results"][:1]
    assert run["id"] in shown


def test_the_fix_for_a_response_without_a_query_works():
    ended = run_tiny(RESPONSE)
    assert ended.code == 4
    assert "--query TEXT for one response" in ended.complaint


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--query", "q", "--query-field", "x"], "--query and --query-field"),
        (["--query", " "], "--query"),
        (["--text-template", "{title"], "--text-template"),
        (["--text-field", "a,b", "--title-field", "c"], "--title-field"),
        (["--text-field", "a", "--text-template", "{b}"], "--text-field and --text-template"),
    ],
)
def test_flags_that_contradict_each_other_are_refused_first(flags, part, tmp_path):
    ended = run_tiny(tmp_path / "missing.jsonl", *flags)
    assert (ended.code, part in ended.complaint) == (2, True)


@pytest.mark.parametrize("flags", [[], ["--long-documents", "max"], ["--devices", "cpu,cpu"], ["--mark-truncated"]])
def test_queries_without_candidates_are_answered(tmp_path, flags):
    path = write_lines(tmp_path / "in.jsonl", EMPTY)
    ended = run_tiny(path, *flags, "--summary", tmp_path / "figures.json")
    assert [len(answer["results"]) for answer in ended.records] == [0, 2]
    assert json.loads((tmp_path / "figures.json").read_text())["queries_without_candidates"] == 1
    only = write_lines(tmp_path / "only.jsonl", EMPTY[:1])
    assert [answer["results"] for answer in run_tiny(only, *flags).records] == [[]]


def test_the_summary_counts_them():
    ended = rerank("run", "-m", TINY, stdin=json.dumps(EMPTY[0]).encode())
    assert ended.complaint.endswith("1 query without candidates")


@pytest.mark.parametrize(("flags", "code"), [([], 4), (["--on-error", "skip"], 3), (["--on-error", "emit"], 3)])
def test_candidates_may_be_required(tmp_path, flags, code):
    path = write_lines(tmp_path / "in.jsonl", EMPTY)
    ended = run_tiny(path, "--require-candidates", *flags)
    assert ended.code == code
    assert code != 4 or "in.jsonl:1: the query has no candidates" in ended.complaint


def test_other_commands_take_queries_without_candidates(tmp_path):
    path, out = write_lines(tmp_path / "in.jsonl", EMPTY), tmp_path / "out.jsonl"
    run_tiny(path, "-o", out)
    checked = rerank("check", path, "-m", TINY, "--json").records[0]
    assert (checked["records"], checked["pairs"], checked["queries_without_candidates"]) == (2, 2, 1)
    assert "1 query without candidates" in rerank("check", path, "-m", TINY).out.decode()
    inspected = rerank("inspect", path, "-m", TINY)
    assert (inspected.code, "it has 0" in inspected.complaint) == (4, True)
    (tmp_path / "qrels").write_text("f 0 1 1\ne 0 0 1\n")
    for command in (
        ["view", out],
        ["report", out, "--input", path],
        ["report", out, "-o", tmp_path / "page.html", "--qrels", tmp_path / "qrels"],
        ["eval", out, "--qrels", tmp_path / "qrels", "--baseline", path],
        ["mine", out, "--input", path, "--qrels", tmp_path / "qrels"],
    ):
        ended = rerank(*command)
        assert ended.code == 0, ended.err


def test_a_record_that_forbids_truncation_is_counted_by_check(tmp_path):
    record = {"query": "q", "documents": ["a " * 600, "b"], "truncation": False}
    path = write_lines(tmp_path / "in.jsonl", [record])
    ended = rerank("check", path, "-m", TINY, "--json", "--max-length", "64")
    assert (ended.code, ended.records[0]["rejected"]) == (3, {"too_long": 1})
    assert run_tiny(path, "--max-length", "64").complaint.startswith(f"rerank: {path}:1: document 0 and the query")


def test_text_fields_change_scores_and_belong_to_a_run(tmp_path):
    document = {"id": "d", "title": "panda", "body": "a bear"}
    path = write_lines(tmp_path / "in.jsonl", [{"query": "what is a panda", "documents": [document]}])
    answers = {}
    for flags in (
        (),
        ("--text-field", "title,body"),
        ("--text-template", r"{title}\n{body}"),
        ("--text-field", "body,title"),
    ):
        (answers[flags],) = run_tiny(path, *flags, "--scores", "raw").records
    assert len({answer["results"][0]["relevance_score"] for answer in answers.values()}) > 1
    assert answers[()]["results"] == answers["--text-field", "title,body"]["results"]
    inspected = rerank("inspect", path, "-m", TINY, "--text-template", "{title}: {body}", "--json").records[0]
    assert inspected["passage"]["text"] == "panda: a bear"
