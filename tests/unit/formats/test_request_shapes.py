import pytest

from rerank_cli.formats import InputOptions, open_source
from rerank_cli.records import Candidate, Rejection, Shape


def test_a_rerank_record_becomes_a_request(only):
    record = only({"id": 7, "query": "q", "documents": ["a", {"text": "b", "id": "x"}], "top_n": 1, "lang": "de"})
    assert (record.id, record.query, record.shape, record.top_n) == (7, "q", Shape.RERANK, 1)
    assert record.candidates == (Candidate("a", "a"), Candidate("b", {"text": "b", "id": "x"}, "x"))
    assert record.extra == {"lang": "de"}


def test_a_score_record_takes_a_list_of_texts(only):
    record = only({"text_1": "q", "text_2": ["a", "b"]})
    assert (record.shape, record.query, [c.text for c in record.candidates]) == (Shape.SCORE, "q", ["a", "b"])


def test_a_score_record_takes_a_single_text(only):
    assert [c.text for c in only({"text_1": "q", "text_2": "a"}).candidates] == ["a"]


def test_a_candidates_record_is_read_through_its_nested_documents(only):
    document = {"docid": "d1", "score": 3, "doc": {"title": "T", "segment": "s", "url": "u"}}
    record = only({"query": {"qid": 5, "text": "q"}, "candidates": [document]})
    assert (record.shape, record.id, record.query) == (Shape.CANDIDATES, 5, "q")
    assert record.candidates == (Candidate("T s", document, "d1", 3.0),)
    assert record.extra == {}


def test_what_else_a_query_object_holds_is_carried(only):
    record = only({"query": {"qid": 5, "text": "q", "lang": "de"}, "candidates": ["a"]})
    assert record.extra == {"query": {"lang": "de"}}


def test_a_nested_document_may_be_a_string(only):
    assert only({"query": "q", "candidates": [{"docid": "d", "doc": "plain"}]}).candidates[0].text == "plain"


def test_a_batch_record_is_opened_and_keeps_its_custom_id(only):
    body = {"query": "q", "documents": ["a"], "model": "m", "top_n": 2, "user": "u"}
    record = only({"custom_id": "c1", "method": "POST", "url": "/v1/rerank", "body": body, "tag": 1})
    assert (record.id, record.shape, record.top_n) == ("c1", Shape.BATCH, 2)
    assert record.extra == {"tag": 1, "user": "u"}


def test_a_batch_record_with_a_score_body_is_answered_as_scores(only):
    record = only({"custom_id": "c1", "url": "/v1/score", "body": {"text_1": "q", "text_2": "a"}})
    assert (record.id, record.shape) == ("c1", Shape.SCORE)


def test_the_source_of_batches_says_so_whatever_the_bodies_are(write):
    source = open_source(InputOptions((write({"custom_id": 1, "body": {"text_1": "q", "text_2": "a"}}),)))
    source.close()
    assert source.shape is Shape.BATCH


@pytest.mark.parametrize("name", ["query", "q", "question"])
@pytest.mark.parametrize("documents", ["documents", "candidates", "docs", "passages", "texts", "ctxs"])
def test_queries_and_lists_are_known_by_many_names(only, name, documents):
    record = only({name: "q", documents: ["a"]})
    assert (record.query, record.candidates[0].text, record.extra) == ("q", "a", {})


@pytest.mark.parametrize(("names", "shape"), [(("pos", "neg"), Shape.TRAIN), (("positive", "negative"), Shape.RERANK)])
def test_positives_and_negatives_are_candidates_in_that_order(only, names, shape):
    record = only({"query": "q", names[0]: ["a"], names[1]: ["b", "c"]})
    assert [c.text for c in record.candidates] == ["a", "b", "c"]
    assert (record.extra, record.shape) == ({}, shape)


@pytest.mark.parametrize("name", ["text", "segment", "contents", "content", "body", "passage", "passage_text"])
def test_texts_are_known_by_many_names(only, name):
    assert only({"query": "q", "documents": [{name: "a"}]}).candidates[0].text == "a"


@pytest.mark.parametrize("name", ["id", "_id", "query_id", "query-id", "qid", "custom_id"])
def test_query_ids_are_known_by_many_names(only, name):
    assert only({name: 3, "query": "q", "documents": ["a"]}).id == 3


@pytest.mark.parametrize(
    "name", ["id", "_id", "docid", "doc_id", "docno", "pid", "corpus_id", "corpus-id", "passage_id"]
)
def test_document_ids_are_known_by_many_names(only, name):
    assert only({"query": "q", "documents": [{name: "d", "text": "a"}]}).candidates[0].id == "d"


@pytest.mark.parametrize(
    ("name", "value", "score"), [("score", 2, 2.0), ("sim", 0.5, 0.5), ("retrieval_score", 1, 1.0)]
)
def test_first_stage_scores_are_known_by_many_names(only, name, value, score):
    assert only({"query": "q", "documents": [{name: value, "text": "a"}]}).candidates[0].score == score


@pytest.mark.parametrize("value", [True, "0.5", None])
def test_a_score_that_is_no_number_is_only_carried(only, value):
    candidate = only({"query": "q", "documents": [{"score": value, "text": "a"}]}).candidates[0]
    assert candidate.score is None
    assert candidate.source["score"] is value or candidate.source["score"] == value


def test_the_first_name_with_a_value_wins(only):
    record = only({"query": "q", "documents": [{"text": None, "segment": "s", "body": "b"}]})
    assert record.candidates[0].text == "s"


@pytest.mark.parametrize(("title", "text"), [("T", "T a"), ("", "a"), (None, "a")])
def test_a_title_is_set_before_the_text(only, title, text):
    assert only({"query": "q", "documents": [{"title": title, "text": "a"}]}).candidates[0].text == text


def test_a_title_with_an_empty_text_leaves_no_space(only):
    assert only({"query": "q", "documents": [{"title": "T", "text": ""}]}).candidates[0].text == "T"


def test_an_empty_document_is_a_document(only):
    assert [c.text for c in only({"query": "q", "documents": ["", {"text": ""}]}).candidates] == ["", ""]


def test_fields_can_be_mapped_with_dotted_paths(only):
    record = {"in": {"ask": "q", "lang": "de"}, "key": 9, "found": [{"name": "d", "meta": {"words": "a"}}], "id": 1}
    options = {"query_field": "in.ask", "documents_field": "found", "text_field": "meta.words"}
    found = only(record, id_field="key", doc_id_field="name", **options)
    assert (found.query, found.id, found.candidates[0].text, found.candidates[0].id) == ("q", 9, "a", "d")
    assert found.extra == {"in": {"lang": "de"}, "id": 1}


def test_a_mapped_field_switches_its_table_off(only):
    assert only({"query": "q", "documents": ["a"]}, query_field="ask", shape=Shape.RERANK).code == "missing_query"


def test_model_is_dropped_and_unknown_fields_are_carried(only):
    record = only({"query": "q", "documents": ["a"], "model": "m", "priority": 1, "return_documents": False})
    assert (record.extra, record.return_documents) == ({"priority": 1}, False)


@pytest.mark.parametrize("name", ["instruction", "prompt"])
def test_an_instruction_goes_before_the_query(only, name):
    assert only({"query": "q", "documents": ["a"], name: "Find: "}).instruction == "Find: "


@pytest.mark.parametrize("value", [0, None])
def test_a_top_n_of_nothing_means_all(only, value):
    assert only({"query": "q", "documents": ["a"], "top_n": value}).top_n is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"query": None}, "missing_query"),
        ({"query": ""}, "empty_query"),
        ({"query": " \n"}, "empty_query"),
        ({"query": 3}, "bad_query"),
        ({"query": ["a"]}, "bad_query"),
        ({"documents": None}, "no_candidates"),
        ({"documents": "a"}, "bad_documents"),
        ({"documents": {"text": "a"}}, "bad_documents"),
        ({"documents": ["a", None]}, "null_text"),
        ({"documents": [{"text": None}]}, "null_text"),
        ({"documents": [{"doc": None}]}, "null_text"),
        ({"documents": [3]}, "bad_text"),
        ({"documents": [{"text": ["a"]}]}, "bad_text"),
        ({"documents": [{"title": "a"}]}, "missing_text"),
        ({"documents": [{"id": 1, "text": "a"}, {"id": 1, "text": "b"}]}, "duplicate_id"),
        ({"documents": [{"id": [1], "text": "a"}]}, "bad_id"),
        ({"id": True}, "bad_id"),
        ({"id": {"a": 1}}, "bad_id"),
        ({"top_n": -1}, "bad_top_n"),
        ({"top_n": 1.5}, "bad_top_n"),
        ({"top_n": True}, "bad_top_n"),
        ({"top_n": "3"}, "bad_top_n"),
        ({"max_tokens_per_doc": 0}, "bad_max_tokens_per_doc"),
        ({"instruction": 1}, "bad_instruction"),
        ({"prompt": ["a"]}, "bad_prompt"),
        ({"return_documents": "yes"}, "bad_return_documents"),
    ],
)
def test_a_record_that_cannot_be_used_has_a_code(only, change, code):
    bad = only({"query": "q", "documents": ["a"]} | change)
    assert isinstance(bad, Rejection)
    assert bad.code == code
    assert len(bad.message) < 400


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"text_1": "q", "text_2": None}, "no_candidates"),
        ({"text_1": ["q"], "text_2": "a"}, "bad_query"),
        ({"custom_id": 1, "body": {"query": "q"}}, "no_candidates"),
        ({"custom_id": 1, "body": {"documents": ["q"]}}, "missing_query"),
        ({"query": "q"}, "no_candidates"),
        ({"something": 1}, "missing_query"),
    ],
)
def test_bad_records_of_other_shapes_have_codes_too(only, record, code):
    assert only(record).code == code


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ({"query": None, "documents": ["a"]}, ["`query` is null", "expected a string"]),
        ({"query": {"qid": 1, "text": None}, "candidates": ["a"]}, ["`text` is null"]),
        ({"query": {"qid": 1}, "candidates": ["a"]}, ["there is no query (got qid;", "`text`"]),
        ({"query": "q", "documents": None}, ["`documents` is null", "expected a list"]),
        ({"query": "q", "document": "a"}, ["a field `document`", "`documents`, a list", "--text-field document"]),
        ({"query": "q", "document": ["a"]}, ["a field `document`", "--documents-field document"]),
        ({"text_1": None, "text_2": "a"}, ["`text_1` is null"]),
    ],
)
def test_a_field_that_is_null_or_singular_is_named(only, record, parts):
    message = only(record).message
    assert [part for part in parts if part not in message] == []
    assert "--query-field" not in message or "there is no query" in message


@pytest.mark.parametrize("flag", ["documents_field", "text_field"])
def test_the_advice_for_a_singular_field_works(only, flag):
    text = ["a"] if flag == "documents_field" else "a"
    record = only({"query": "q", "document": text}, **{flag: "document"})
    assert [candidate.text for candidate in record.candidates] == ["a"]


def test_a_batch_without_a_body_is_bad(only):
    assert only({"custom_id": 1, "body": "x"}, shape=Shape.BATCH).code == "bad_batch"


def test_an_integer_that_json_libraries_would_change_is_refused_as_an_id(read, write):
    (bad,) = read(write(b'{"id": 123456789012345678901234567890, "query": "q", "documents": ["a"]}\n'))
    assert bad.code == "bad_id"
    assert "over 64 bits" in bad.message


def test_a_bad_record_keeps_its_id(only):
    assert only({"id": "q9", "query": "", "documents": ["a"]}).id == "q9"


def test_records_without_an_id_are_numbered_through_all_files(read, write):
    record = {"query": "q", "documents": ["a"]}
    first = write(record, b"{\n", record, name="one.jsonl")
    second = write({"id": 0} | record, record, name="two.jsonl")
    found = [r.id for r in read(first, second)]
    assert found == ["rerank-1", "rerank-2", "rerank-3", 0, "rerank-5"]


@pytest.mark.parametrize(
    "other",
    [
        {"text_1": "q", "text_2": ["a"]},
        {"query": {"text": "q"}, "candidates": ["a"]},
        {"query": "q", "docid": "d", "text": "a"},
        {"custom_id": 1, "body": {"query": "q", "documents": ["a"]}},
    ],
)
def test_a_file_keeps_the_shape_of_its_first_record(read, write, other):
    good, bad = read(write({"query": "q", "documents": ["a"]}, other))
    assert good.shape is Shape.RERANK
    assert bad.code == "wrong_shape"


def test_the_shape_is_settled_by_the_first_record_that_shows_one(read, write):
    records = read(write(b"{\n", {"x": 1}, {"text_1": "q", "text_2": "a"}, {"query": "q", "documents": ["a"]}))
    assert [getattr(r, "code", "good") for r in records] == ["bad_json", "missing_query", "good", "wrong_shape"]


def test_a_forced_shape_reads_the_names_of_another(only):
    record = only({"text_1": "q", "text_2": ["a"]}, shape=Shape.RERANK)
    assert (record.shape, record.query) == (Shape.RERANK, "q")


@pytest.mark.parametrize(
    ("record", "shape"),
    [
        ({"query": "q", "documents": ["a"]}, Shape.RERANK),
        ({"text_1": "q", "text_2": ["a"]}, Shape.SCORE),
        ({"query": {"text": "q"}, "candidates": ["a"]}, Shape.CANDIDATES),
        ({"query_id": 1, "query": "q", "docid": 1, "text": "a"}, Shape.PAIRS),
        ({"custom_id": 1, "url": "/v1/rerank", "body": {"query": "q", "documents": ["a"]}}, Shape.BATCH),
    ],
)
def test_the_shape_is_known_and_said_when_the_source_is_opened(write, record, shape):
    source = open_source(InputOptions((write(record),)))
    source.close()
    assert source.shape is shape
    assert source.description == f"JSON lines, {shape}"
