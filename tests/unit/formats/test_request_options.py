"""Options in a request, by their names in the rerank APIs: each does what its API says, or the record is an error."""

import pytest

from rerank_cli.choices import ScoreKind
from rerank_cli.records import Rejection

BASE = {"query": "q", "documents": ["a", {"title": "T", "text": "b", "author": "A"}]}


@pytest.mark.parametrize("name", ["top_n", "top_k"])
def test_the_number_of_results_has_two_names(only, name):
    record = only(BASE | {name: 1})
    assert (record.top_n, record.extra) == (1, {})


@pytest.mark.parametrize("name", ["return_documents", "return_text", "return_input"])
@pytest.mark.parametrize("value", [True, False])
def test_documents_are_returned_or_not_under_three_names(only, name, value):
    record = only(BASE | {name: value})
    assert (record.return_documents, record.extra) == (value, {})


@pytest.mark.parametrize(
    ("options", "raw"),
    [
        ({"raw_scores": True}, True),
        ({"raw_scores": False}, False),
        ({"use_activation": False}, True),
        ({"use_activation": True}, False),
        ({"activation": False}, True),
        ({"softmax": False}, True),
        ({"raw_scores": True, "use_activation": False}, True),
        ({"raw_scores": None}, None),
    ],
)
def test_raw_scores_are_logits(only, options, raw):
    record = only(BASE | options)
    assert (record.raw_scores, record.extra) == (raw, {})
    assert (
        record.score_kind(ScoreKind.BOTH) is {True: ScoreKind.RAW, False: ScoreKind.SIGMOID, None: ScoreKind.BOTH}[raw]
    )


@pytest.mark.parametrize(
    ("options", "truncation"),
    [
        ({"truncation": True}, True),
        ({"truncation": False}, False),
        ({"truncate": False}, False),
        ({"truncate": "END"}, True),
        ({"truncate": "none"}, False),
        ({"truncate": True, "truncation_direction": "Right"}, True),
        ({"truncation_side": "right"}, None),
    ],
)
def test_truncation_is_allowed_or_not(only, options, truncation):
    record = only(BASE | options)
    assert (record.truncation, record.extra) == (truncation, {})


@pytest.mark.parametrize(
    ("fields", "text"),
    [(["text"], "b"), (["title", "text"], "T b"), (["author", "text"], "A b"), (["gone", "author"], "A")],
)
def test_rank_fields_are_the_text_in_their_order(only, fields, text):
    record = only(BASE | {"rank_fields": fields}, text_field="title")
    assert [candidate.text for candidate in record.candidates] == ["a", text]
    assert record.rank_fields == tuple(fields)


@pytest.mark.parametrize("name", ["instruction", "prompt", "instruct"])
def test_an_instruction_has_three_names(only, name):
    record = only(BASE | {name: "Find: "})
    assert (record.instruction, record.extra) == ("Find: ", {})


def test_options_may_be_in_an_object_of_parameters(only):
    record = only(BASE | {"parameters": {"top_n": 1, "return_documents": False, "truncate": "NONE"}})
    assert (record.top_n, record.return_documents, record.truncation, record.extra) == (1, False, False, {})


def test_other_parameters_are_a_field_like_any_other(only):
    assert only(BASE | {"parameters": {"colour": 1}}).extra == {"parameters": {"colour": 1}}


def test_documents_of_mixedbread_are_the_input(only):
    record = only({"query": "q", "input": ["a", {"t": "b"}], "rank_fields": ["t"], "top_k": 1, "return_input": True})
    assert [candidate.text for candidate in record.candidates] == ["a", "b"]
    assert (record.top_n, record.return_documents, record.extra) == (1, True, {})


def test_a_column_named_input_does_not_make_a_request(only):
    record = only({"query": "q", "text": "a", "input": ["x"]})
    assert [candidate.text for candidate in record.candidates] == ["a"]


@pytest.mark.parametrize("name", ["model", "user", "priority", "request_id"])
def test_what_does_not_change_an_answer_is_no_option(only, name):
    assert only(BASE | {name: "x"}).extra == ({} if name == "model" else {name: "x"})


@pytest.mark.parametrize(
    "options",
    [
        {"max_chunks_per_doc": None, "overlap_tokens": None, "rewrite_query": False, "return_embeddings": False},
        {"truncate_prompt_tokens": -1, "parameters": None},
        {"top_n": 0, "max_tokens_per_query": 0},
    ],
)
def test_an_option_that_asks_for_nothing_is_no_error(only, options):
    assert not isinstance(only(BASE | options), Rejection)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"max_chunks_per_doc": 10}, "unsupported_option"),
        ({"max_chunks_per_doc": 1}, "unsupported_option"),
        ({"overlap_tokens": 80}, "unsupported_option"),
        ({"truncate_prompt_tokens": 256}, "unsupported_option"),
        ({"max_tokens_per_query": 64}, "unsupported_option"),
        ({"rewrite_query": True}, "unsupported_option"),
        ({"return_embeddings": True}, "unsupported_option"),
        ({"truncation_direction": "Left"}, "unsupported_option"),
        ({"truncation_side": "left"}, "unsupported_option"),
        ({"parameters": {"truncate": "END", "colour": 1}}, "unsupported_option"),
        ({"top_n": 2, "parameters": {"top_n": 1}}, "bad_top_n"),
        ({"top_n": 2, "top_k": 1}, "bad_top_n"),
        ({"top_k": 0}, "bad_top_k"),
        ({"top_k": "3"}, "bad_top_k"),
        ({"return_documents": True, "return_text": False}, "bad_return_documents"),
        ({"return_text": 1}, "bad_return_text"),
        ({"raw_scores": "yes"}, "bad_raw_scores"),
        ({"raw_scores": True, "use_activation": True}, "bad_raw_scores"),
        ({"truncate": "START"}, "bad_truncate"),
        ({"truncation": 1}, "bad_truncation"),
        ({"rank_fields": "title"}, "bad_rank_fields"),
        ({"rank_fields": []}, "bad_rank_fields"),
        ({"rank_fields": ["gone"]}, "missing_text"),
        ({"instruct": 1}, "bad_instruct"),
    ],
)
def test_an_option_that_cannot_be_followed_is_an_error(only, options, code):
    bad = only(BASE | options)
    assert isinstance(bad, Rejection)
    assert (bad.code, "\n" in bad.message) == (code, False)


@pytest.mark.parametrize("option", [{"top_n": 1}, {"top_k": 1}, {"return_documents": True}])
def test_a_score_request_is_answered_with_all_scores_and_nothing_else(only, option):
    assert only({"text_1": "q", "text_2": ["a", "b"]} | option).code == "unsupported_option"


@pytest.mark.parametrize("option", [{"top_n": 0}, {"return_documents": False}, {"use_activation": False}])
def test_a_score_request_takes_the_options_that_fit(only, option):
    assert len(only({"text_1": "q", "text_2": ["a", "b"]} | option).candidates) == 2


def test_the_body_of_a_batch_has_options(only):
    body = BASE | {"top_k": 1, "raw_scores": True, "user": "u"}
    record = only({"custom_id": "c", "url": "/v1/rerank", "body": body})
    assert (record.top_n, record.raw_scores, record.extra) == (1, True, {"user": "u"})


def test_columns_of_training_data_are_no_options(only):
    given = {"query": "q", "pos": ["a"], "neg": ["b"], "top_k": "x", "truncate": 7, "raw_scores": "?", "prompt": "P: "}
    record = only(given)
    assert (record.given, record.instruction, record.raw_scores) == (given, "P: ", None)


def test_options_of_a_parquet_table_are_read_row_by_row(tmp_path, read):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"query": "q", "documents": ["a"], "truncate": "END", "top_k": 1, "max_chunks_per_doc": None},
        {"query": "q", "documents": ["a"], "truncate": "NONE", "top_k": None, "max_chunks_per_doc": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    good, bad = read(str(tmp_path / "t.parquet"))
    assert (good.truncation, good.top_n, good.extra) == (True, 1, {})
    assert bad.code == "unsupported_option"
