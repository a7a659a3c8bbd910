import math
import struct

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.choices import ScoreKind
from rerank_cli.ranking import sigmoid
from rerank_cli.records import Candidate, Shape


def test_an_answer_is_written_byte_for_byte(save, ranking):
    line = save([ranking([-1.5, 2.25])]).read_bytes()
    assert line == (
        b'{"id":"q1","model":"m","usage":{"total_tokens":42},"results":['
        b'{"index":1,"document":{"text":"text 1"},"relevance_score":0.9046505},'
        b'{"index":0,"document":{"text":"text 0"},"relevance_score":0.18242553}]}\n'
    )


@pytest.mark.parametrize("shape", [Shape.RERANK, Shape.SCORE])
def test_the_query_stands_after_the_id_where_it_is_asked_for(save, ranking, shape):
    line = save([ranking([1], shape=shape, extra={"query": "of another field"})], query=True).read_bytes()
    assert line.startswith(b'{"id":"q1","query":"a query","model":"m","usage":{"total_tokens":42},"')
    assert b"another" not in line


def test_raw_scores_are_logits(saved, ranking):
    (answer,) = saved([ranking([-1.5, 2.25])], scores=ScoreKind.RAW)
    assert [result["relevance_score"] for result in answer["results"]] == [2.25, -1.5]
    assert list(answer["results"][0]) == ["index", "document", "relevance_score"]


def test_both_scores_stand_side_by_side(saved, ranking):
    (answer,) = saved([ranking([-1.5])], scores=ScoreKind.BOTH)
    assert list(answer["results"][0]) == ["index", "document", "relevance_score", "logit"]
    assert answer["results"][0]["logit"] == -1.5


def test_document_objects_are_handed_back_as_they_were(saved, ranking):
    source = {"z": [1.0, None], "text": "t", "id": 3, "a": {"b": True}}
    (answer,) = saved([ranking([0.5], [Candidate("t", source, 3)])])
    assert orjson.dumps(answer["results"][0]["document"]) == orjson.dumps(source)


def test_without_documents_ids_and_first_scores_stand_beside_the_index(saved, ranking):
    candidates = [Candidate("a", {"id": 3}, 3, 1.5), Candidate("b", "b")]
    (answer,) = saved([ranking([2, 1], candidates)], documents=False)
    first, second = answer["results"]
    assert list(first.items())[:3] == [("index", 0), ("id", 3), ("retrieval_score", 1.5)]
    assert list(second) == ["index", "relevance_score"]


def test_a_request_may_ask_for_no_documents(saved, ranking):
    (answer,) = saved([ranking([1], return_documents=False)])
    assert "document" not in answer["results"][0]


def test_the_order_given_is_kept_with_its_cut(saved, ranking):
    (answer,) = saved([ranking([1, 3, 2], order=[1, 2])])
    assert [result["index"] for result in answer["results"]] == [1, 2]


@pytest.mark.parametrize("name", ["q", 7, 7.5, 2**63])
def test_ids_keep_their_type(saved, ranking, name):
    (answer,) = saved([ranking([1], id=name)])
    assert answer["id"] == name
    assert type(answer["id"]) is type(name)


def test_fields_that_are_not_ours_follow_and_never_replace_ours(saved, ranking):
    (answer,) = saved([ranking([1], extra={"lang": "de", "results": "old", "id": "other", "error": 1})])
    assert list(answer) == ["id", "model", "usage", "results", "lang"]
    assert answer["id"] == "q1"
    assert answer["results"][0]["index"] == 0


def test_scores_are_answered_in_input_order(save, ranking):
    line = save([ranking([-2.0, 2.0], shape=Shape.SCORE)]).read_bytes()
    assert line == (
        b'{"id":"q1","model":"m","usage":{"total_tokens":42},"data":['
        b'{"index":0,"object":"score","score":0.11920292},{"index":1,"object":"score","score":0.8807971}]}\n'
    )


def test_a_batch_answer_is_in_its_envelope(saved, ranking):
    (line,) = saved([ranking([1], shape=Shape.BATCH)], format="openai-batch")
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert (line["custom_id"], line["error"]) == ("q1", None)
    assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert line["response"]["status_code"] == 200
    assert list(line["response"]["body"]) == ["id", "model", "usage", "results"]


def test_rejections_are_left_out_unless_errors_are_kept(saved, ranking, rejection):
    assert len(saved([rejection, ranking([1])])) == 1


def test_a_rejection_is_written_in_its_place(saved, ranking, rejection):
    first, _ = saved([rejection, ranking([1])], keep_errors=True)
    assert first == {"id": "q7", "error": {"code": "bad_json", "message": "broken JSON", "line": 7}}


def test_a_rejection_in_a_batch_has_an_envelope_too(saved, rejection):
    (line,) = saved([rejection], keep_errors=True, format="openai-batch")
    assert (line["custom_id"], line["response"], line["error"]["code"]) == ("q7", None, "bad_json")


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(floats, min_size=1, max_size=20))
def test_written_scores_read_back_to_the_same_float32(values):
    from rerank_cli.formats.writing.line_sink import json_line

    written = orjson.loads(json_line({"scores": list(np.array(values, dtype=np.float32))}))["scores"]
    assert [struct.pack("f", number) for number in written] == [struct.pack("f", number) for number in values]


@settings(max_examples=200, deadline=None)
@given(floats)
def test_the_sigmoid_is_right_at_every_size(value):
    exact = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
    assert sigmoid(np.array([value], dtype=np.float32))[0] == np.float32(exact)
