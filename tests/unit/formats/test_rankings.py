import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.results import Result
from rerank_cli.formats.runs.run_file import read_rankings
from rerank_cli.formats.shapes.fields import Names


def read(path, *wanted, **fields):
    return read_rankings(path, set(wanted or "q"), Names(**fields))


def order(path, *wanted, **fields):
    found = read(path, *wanted, **fields).rankings
    (item,) = found.values()
    return [document.id for document in item.results]


def answer(*names, **fields):
    results = [{"index": i, "id": name, "relevance_score": 1 - i / 10} for i, name in enumerate(names)]
    return {"id": "q", "results": results} | fields


def test_equal_scores_of_a_trec_run_are_taken_by_document_id_downwards(write):
    assert order(write(b"q Q0 a 1 2.0 t\nq Q0 c 2 2.0 t\nq Q0 b 3 2.0 t\nq Q0 z 4 1 t\n")) == ["c", "b", "a", "z"]


def test_scores_are_compared_as_the_float32_that_trec_eval_holds(write):
    assert order(write(b"q Q0 a 1 1.0000000001 t\nq Q0 b 2 1.0 t\n")) == ["b", "a"]
    assert order(write(b"q Q0 a 1 1.000001 t\nq Q0 b 2 1.0 t\n")) == ["a", "b"]


def test_the_rank_of_a_trec_run_says_nothing(write):
    assert order(write(b"q Q0 a 1 1 t\nq Q0 b 2 2 t\n")) == ["b", "a"]


def test_equal_scores_of_an_answer_keep_the_order_of_the_answer(write):
    results = [{"index": 0, "id": name, "relevance_score": 1.0} for name in "bac"]
    assert order(write({"id": "q", "results": results})) == ["b", "a", "c"]


def test_the_rank_of_pairs_is_their_order(write):
    rows = [{"query_id": "q", "docid": name, "relevance_score": 1.0, "rank": rank} for name, rank in ("a2", "b1", "c3")]
    assert order(write(*(row | {"rank": int(row["rank"])} for row in rows))) == ["b", "a", "c"]


def test_rows_without_a_rank_go_by_score(write):
    assert order(write(b"query_id\tdocid\trelevance_score\nq\ta\t1\nq\tb\t2\n", name="run.tsv")) == ["b", "a"]
    assert order(write(b"query_id\tdocid\tscore\nq\ta\t1\nq\tb\t2\n", name="run.tsv")) == ["b", "a"]


def test_rows_with_neither_stay_as_they_come(write):
    assert order(write(b"qid\tpid\nq\tb\nq\ta\n")) == ["b", "a"]


def test_a_run_may_be_sorted_in_any_way(write):
    found = read(write(b"q Q0 a 1 1 t\np Q0 x 1 1 t\nq Q0 b 2 2 t\n"), "q", "p").rankings
    assert {query: [d.id for d in item.results] for query, item in found.items()} == {"q": ["b", "a"], "p": ["x"]}


def test_queries_that_are_not_wanted_are_counted_and_passed_over(write):
    found = read(write(answer("a"), answer("b", id="x"), answer("c", id="y")))
    assert set(found.rankings) == {"q"}
    assert found.others == 2


def test_ids_are_text_whatever_they_were(write):
    assert order(write({"id": 7, "results": [{"index": 0, "document": {"id": 12}, "relevance_score": 1}]}), "7") == [
        "12"
    ]


@pytest.mark.parametrize(
    "document", [{"docid": "a"}, {"doc": {"docid": "a"}}, {"_id": "a", "text": "t"}, {"pid": "a", "score": 2}]
)
def test_a_document_brings_its_id(write, document):
    assert order(write({"id": "q", "results": [{"index": 0, "document": document, "relevance_score": 1}]})) == ["a"]


def test_the_field_of_an_id_can_be_named(write):
    record = {"id": "q", "results": [{"index": 0, "document": {"key": "a"}, "relevance_score": 1}]}
    assert order(write(record), doc_id=("key",)) == ["a"]


def test_an_answer_that_is_an_error_is_no_ranking(write):
    found = read(write({"id": "p", "error": {"code": "bad"}}, answer("a")), "p", "q")
    assert set(found.rankings) == {"q"}


def test_a_batch_that_failed_is_no_ranking(write):
    failed = {"id": "batch-p", "custom_id": "p", "response": None, "error": {"code": "bad"}}
    assert set(read(write(failed, answer("a")), "p", "q").rankings) == {"q"}


def test_the_input_of_a_run_is_the_first_stage_by_its_scores(write):
    documents = [{"id": "a", "text": "t", "score": 1}, {"id": "b", "text": "t", "score": 3}]
    assert order(write({"id": "q", "query": "x", "documents": documents})) == ["b", "a"]


def test_the_input_of_a_run_without_scores_is_the_first_stage_as_it_comes(write):
    documents = [{"id": "b", "text": "t", "score": 1}, {"id": "a", "text": "t"}]
    assert order(write({"id": "q", "query": "x", "documents": documents})) == ["b", "a"]


def test_both_scores_and_the_place_are_read(write):
    result = {"index": 4, "id": "a", "relevance_score": 0.5, "retrieval_score": 9}
    assert read(write({"id": "q", "results": [result]})).rankings["q"].results == (Result("a", 0.5, 4, None, 9.0),)
    result = {"index": 4, "document": {"id": "a", "score": 9}, "relevance_score": 0.5}
    assert read(write({"id": "q", "results": [result]})).rankings["q"].results == (Result("a", 0.5, 4, None, 9.0),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"q Q0 a 1 1\n", r":1: not a line of a run \(got 5 columns, expected 6 \(TREC\) or 3"),
        (b"q Q0 a 1 1 t\nq a 1\n", r":2: not a line of a run \(got 3 columns, expected 6\)"),
        (b"q Q0 a 1 high t\n", r":1: the score is not a number \(got high"),
        (b"q Q0 a 1 nan t\n", r":1: the score is not a number"),
        (b"q Q0 a 1 1 t\nq Q0 a 2 0 t\n", r"query q has document a more than once"),
        (b"q\ta\t0.5\n", r":1: the rank is not a whole number from 1 \(got 0.5\). Fix: for scores"),
        (b"q\ta\t0\n", r":1: the rank is not a whole number from 1"),
        (b"q\ta\tinf\n", r":1: the rank is not a whole number from 1"),
        (b"q\ta\t1\nq\tb\t1\n", r":1: query q, whose rows begin here, has one rank more than once"),
        (b'{"id":"q","results":[{"id":"a"}]}\n', r":1: a result has no `index` \(got id\)"),
        (b'{"results":[{"index":0}]}\n', r":1: the record has no id"),
        (b'{"docid":"a","rank":1}\n', r":1: the row has no query id \(got docid, rank\)"),
        (b'{"query_id":"q","rank":1}\n', r":1: the row has no document id"),
        (b'{"query_id":"q","docid":"a","rank":"x"}\n', r":1: the rank is not a number \(got x"),
        (b'{"query":"x","documents":[]}\n', r":1: the record has no id"),
        (b'{"query":"x","documents":7}\n', r":1: `documents` is not a list"),
        (b'{"id":"q","results":[]}\n7\n', r":2: not a ranking \(got a number"),
        (b'{"id":"q","results":[]}\n{"id":"q","results":[]}\n', r":2: query q occurs twice"),
        (b'{"id":"q","results":[]}\n{"id":', r":2: the last line is cut off"),
        (b'{"q":{"a":1},\n"p":', r":1: broken JSON"),
        (b"[7]", r":1: not a ranking \(got a number"),
    ],
)
def test_what_is_no_ranking_is_named(write, content, message):
    with pytest.raises(InputError, match=message):
        read(write(content))


def test_a_run_of_no_queries_holds_none(write):
    assert read(write(b"{\n\n}\n")).rankings == {}
    assert read(write(b"[]\n")).rankings == {}


KEYS = st.sampled_from(
    [
        "id",
        "query_id",
        "docid",
        "rank",
        "score",
        "relevance_score",
        "results",
        "data",
        "index",
        "document",
        "doc",
        "error",
        "response",
        "custom_id",
        "body",
        "search_results",
        "extra",
        "retrieval_score",
        "relevance",
        "qid",
        "fused_score",
        "query",
        "documents",
        "text_1",
        "text_2",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.sampled_from(["q", "a", "1", "{}", "[1]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5) | VALUES, max_size=3))
def test_any_json_is_read_or_named(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"".join(json.dumps(row).replace("NaN", "null").encode() + b"\n" for row in rows))
    for reader in (lambda path: read_rankings(path, {"q", "1"}), read_qrels):
        with suppress(InputError):
            reader(str(path))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text('q1a. \t\n0-e"{}[]:,\r\0é', max_size=12), max_size=6).map("\n".join) | st.binary(max_size=40))
def test_any_text_is_read_or_named(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for reader in (lambda path: read_rankings(path, {"q", "1"}), read_qrels):
        with suppress(InputError):
            reader(str(path))
