from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.choices import ScoreKind
from rerank_cli.errors import BadRecord
from rerank_cli.formats.writing.scores import strictly_decreasing
from rerank_cli.records import Candidate, Ranking, Shape


def ranked(request, logits):
    values = np.asarray(logits, dtype=np.float32)
    return Ranking(request, values.tolist(), np.argsort(-values, kind="stable").tolist(), 1)


@pytest.fixture
def pairs(read, write):
    (request,) = read(
        write(
            {"text": "one", "lang": "de", "qid": 1, "docid": "a", "query": "q", "score": 3, "rank": 9},
            {"text": "two", "lang": "en", "qid": 1, "docid": "b", "query": "q", "score": 2, "rank": 8},
        )
    )
    return ranked(request, [0, 1])


def test_rows_of_pairs_keep_their_columns_in_place(save, pairs):
    assert save([pairs], format="pairs").read_bytes() == (
        b'{"text":"two","lang":"en","qid":1,"docid":"b","query":"q","score":2,"relevance_score":0.7310586,"rank":1}\n'
        b'{"text":"one","lang":"de","qid":1,"docid":"a","query":"q","score":3,"relevance_score":0.5,"rank":2}\n'
    )


def test_rows_of_pairs_without_documents_keep_ids_and_scores(saved, pairs):
    first, _ = saved([pairs], format="pairs", documents=False)
    assert list(first) == ["query_id", "query", "docid", "retrieval_score", "index", "relevance_score", "rank"]
    assert (first["query_id"], first["docid"], first["retrieval_score"], first["index"]) == (1, "b", 2.0, 1)


def test_pairs_answered_in_the_api_form_leave_the_query_out_of_documents(saved, pairs):
    (answer,) = saved([pairs])
    assert answer["id"] == 1
    assert answer["results"][0]["document"] == {"text": "two", "lang": "en", "docid": "b", "score": 2, "rank": 8}


def test_other_shapes_get_the_common_column_names(saved, only):
    documents = ["plain", {"id": "x", "title": "T", "contents": "c", "score": 2, "url": "u"}]
    request = only({"id": "q", "query": "asks", "documents": documents, "lang": "de"})
    first, second = saved([ranked(request, [0, 1])], format="pairs", scores=ScoreKind.BOTH)
    assert list(first.items())[:-3] == [
        ("query_id", "q"),
        ("query", "asks"),
        ("docid", "x"),
        ("text", "c"),
        ("title", "T"),
        ("url", "u"),
        ("retrieval_score", 2.0),
        ("lang", "de"),
        ("index", 1),
    ]
    assert list(first)[-3:] == ["relevance_score", "logit", "rank"]
    assert (second["docid"], second["text"], second["rank"]) == (0, "plain", 2)


def test_nested_documents_are_flattened(saved, only):
    request = only(
        {"query": {"text": "q"}, "candidates": [{"docid": 1, "score": 5, "doc": {"segment": "s", "url": "u"}}]}
    )
    (row,) = saved([ranked(request, [0])], format="pairs")
    assert (row["docid"], row["text"], row["url"], row["retrieval_score"]) == (1, "s", "u", 5.0)
    assert "doc" not in row


def test_pairs_of_the_score_shape_are_best_first(saved, ranking):
    rows = saved([ranking([1, 3, 2], shape=Shape.SCORE)], format="pairs")
    assert [(row["index"], row["rank"]) for row in rows] == [(1, 1), (2, 2), (0, 3)]


def test_a_run_is_written_byte_for_byte(save, ranking):
    candidates = [Candidate("a", "a", "d1"), Candidate("b", "b", 17), Candidate("c", "c")]
    run = save([ranking([0, 1, -1], candidates, id=5)], name="out.trec", format="trec", scores=ScoreKind.RAW)
    assert run.read_text() == "5 Q0 17 1 1.0 rerank\n5 Q0 d1 2 0.0 rerank\n5 Q0 2 3 -1.0 rerank\n"


def test_saturated_scores_still_decrease_in_a_run(save, ranking):
    run = save([ranking([50.0, 60.0, 50.0, -300.0, -400.0])], name="out.trec", format="trec")
    lines = [line.split(" ") for line in run.read_text().splitlines()]
    scores = [float(line[4]) for line in lines]
    assert [line[2] for line in lines] == ["1", "0", "2", "3", "4"]
    assert all(a > b for a, b in pairwise(scores))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**100, min_value=-(2.0**100)),
        max_size=30,
    )
)
def test_printed_scores_decrease_as_doubles_and_read_back(values):
    found = strictly_decreasing(np.array(sorted(values, reverse=True), dtype=np.float32))
    printed = [str(value) for value in found]
    doubles = [float(text) for text in printed]
    assert all(a > b for a, b in pairwise(doubles))
    assert [np.float32(text) for text in printed] == found


def test_scores_that_decrease_already_are_left_alone():
    values = np.array([3, 2, 1], dtype=np.float32)
    assert strictly_decreasing(values) == [3, 2, 1]


@pytest.mark.parametrize("name", ["a b", "", " a", "a\tb", "a\u00a0b", "a\n"])
def test_a_run_refuses_ids_with_white_space(save, ranking, name):
    with pytest.raises(BadRecord, match=r"in\.jsonl:1: the document id cannot be used in a run file.*--format pairs"):
        save([ranking([1], [Candidate("t", "t", name)])], format="trec")
    with pytest.raises(BadRecord, match="query id"):
        save([ranking([1], id=name)], format="trec")


def test_rejections_have_no_line_in_a_run(save, ranking, rejection):
    assert save([rejection, ranking([1])], format="trec").read_text().count("\n") == 1


def test_a_rejection_among_pairs_is_a_line_of_its_own(saved, rejection):
    assert saved([rejection], format="pairs", keep_errors=True)[0]["error"]["line"] == 7


def test_tab_separated_rows_are_written_as_objects(save, read, write):
    (request,) = read(write(b"1\t10\tasks\tsays\n", name="p.tsv"))
    line = orjson.loads(save([ranked(request, [0])], format="pairs").read_bytes())
    assert line == {"qid": "1", "pid": "10", "query": "asks", "passage": "says", "relevance_score": 0.5, "rank": 1}
