"""Responses of search engines, databases and frameworks: files in tests/neighbours, read with and without --query."""

import json
from pathlib import Path

import pytest

from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.records import Rejection, Request, Shape

FILES = Path(__file__).parents[2] / "neighbours"
PANDA = "The giant panda is a bear that lives in China."
TITLED = f"Giant panda {PANDA}"
ASKED = {"query": "what is a panda?"}
WEAVIATE = ["00313a4c-4308-30b0-af4a-01773ad1752b", "0042b9d0-20e4-334e-8f42-f297c150e8df"]
OBJECTS = ["36ddd591-2dee-4e7e-a3cc-eb86d30a4303", "5b4fa2ae-2dee-4e7e-a3cc-eb86d30a4303"]

# File, what it is said to be, ids, second text, first-stage scores. The first text is "hi", after a title if any.
HITS = [
    ("elasticsearch.search.json", "Elasticsearch or OpenSearch", ["7", "9"], TITLED, [1.3862942, 0.2876821]),
    ("elasticsearch.fields.json", "Elasticsearch or OpenSearch", ["7", "9"], PANDA, [1.0, 0.5]),
    ("vespa.search.json", "Vespa", ["id:mynamespace:doc::7", "id:mynamespace:doc::9"], TITLED, [22.59, 1.18]),
    ("solr.select.json", "Solr", ["7", "9"], TITLED, [2.5, 1.5]),
    ("qdrant.search.json", "Qdrant", [1, 2], TITLED, [0.9950371902099893, 0.6766253142525047]),
    ("qdrant.query.json", "Qdrant", [1, 2], TITLED, [0.9950371902099893, 0.6766253142525047]),
    ("qdrant.client.json", "Qdrant", [1, 2], TITLED, [0.9950371902099893, 0.6766253142525047]),
    ("qdrant.euclid.json", "Qdrant", [1, 2], TITLED, [None, None]),
    ("weaviate.graphql.json", "Weaviate", WEAVIATE, TITLED, [0.0163, 0.0081]),
    ("weaviate.objects.json", "Weaviate", OBJECTS, PANDA, [None, None]),
    ("milvus.rest.json", "Milvus", [7, 9], PANDA, [None, None]),
    ("milvus.client.json", "Milvus", [7, 9], TITLED, [None, None]),
    ("azure.search.json", "Azure AI Search", ["7", "9"], TITLED, [2.1, 1.4]),
    ("pinecone.query.json", "Pinecone", ["7", "9"], PANDA, [0.9, 0.3]),
    ("llamaindex.response.json", "LlamaIndex", ["a", "b"], PANDA, [0.83, 0.71]),
]
ROWS = [
    ("llamaindex.nodes.json", "LlamaIndex", ["a", "b"], PANDA, [0.83, 0.71]),
    ("langchain.documents.json", "LangChain", ["a", "b"], PANDA, [None, None]),
    ("langchain.dumpd.json", "LangChain", ["a", "b"], PANDA, [None, None]),
    ("haystack.documents.json", "", ["a", "b"], TITLED, [0.83, 0.71]),
    ("haystack.nested.json", "", ["a", "b"], PANDA, [0.83, 0.71]),
    ("pgvector.rows.jsonl", "", [7, 9], PANDA, [None, None]),
    ("pgvector.similarity.jsonl", "", [7, 9], PANDA, [0.88, 0.52]),
]


def load(name):
    text = (FILES / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if name.endswith("jsonl") else json.loads(text)


@pytest.mark.parametrize(("name", "product", "ids", "text", "scores"), HITS + ROWS)
def test_a_response_is_one_request_with_the_query_of_the_caller(name, product, ids, text, scores):
    source = open_source(InputOptions((str(FILES / name),), **ASKED))
    (record,) = source
    source.close()
    assert (record.query, record.shape) == ("what is a panda?", Shape.HITS)
    assert [candidate.id for candidate in record.candidates] == ids
    assert [candidate.score for candidate in record.candidates] == scores
    assert record.candidates[0].text in ("hi", "Greeting hi")
    assert record.candidates[1].text == text
    assert source.description.endswith(product)


@pytest.mark.parametrize(("name", "ids", "text"), [(name, ids, text) for name, _, ids, text, _ in HITS])
def test_a_response_has_its_query_beside_its_hits(only, name, ids, text):
    given = load(name)
    if isinstance(given, list):
        return
    record = only({**given, "query": "q", "id": 3, "top_n": 1})
    assert (record.query, record.id, record.top_n, record.shape) == ("q", 3, 1, Shape.HITS)
    assert [candidate.id for candidate in record.candidates] == ids
    assert record.candidates[1].text == text


@pytest.mark.parametrize(("name", "ids", "text", "scores"), [(name, *rest) for name, _, *rest in ROWS])
def test_hits_are_documents_of_a_rerank_request(only, name, ids, text, scores):
    record = only({"query": "q", "documents": load(name)})
    assert record.shape is Shape.RERANK
    assert [candidate.id for candidate in record.candidates] == ids
    assert record.candidates[1].text == text
    assert name == "pgvector.similarity.jsonl" or [candidate.score for candidate in record.candidates] == scores


@pytest.mark.parametrize("name", ["elasticsearch.search.json", "qdrant.search.json", "llamaindex.nodes.json"])
def test_hits_may_be_rows_of_pairs(read, write, name):
    found = load(name)
    hits = found if isinstance(found, list) else found["result"] if "result" in found else found["hits"]["hits"]
    (record,) = read(write(*({"query": "q", "query_id": 1} | hit for hit in hits)))
    assert (record.shape, record.id, len(record.candidates)) == (Shape.PAIRS, 1, 2)
    assert record.candidates[1].text.endswith(PANDA)
    assert None not in [candidate.score for candidate in record.candidates]


def test_what_is_beside_the_hits_is_carried(only):
    record = only(load("elasticsearch.search.json") | {"query": "q"})
    assert record.extra["hits"] == {"total": {"value": 2, "relation": "eq"}, "max_score": 1.3862942}
    assert set(record.extra) == {"took", "timed_out", "_shards", "hits"}


def test_a_vespa_response_without_hits_has_no_list(read):
    (record,) = read(str(FILES / "vespa.empty.json"), **ASKED)
    assert record.candidates == ()


def test_the_query_of_a_langchain_chain_is_in_its_result(read):
    (record,) = read(str(FILES / "langchain.qa.json"))
    assert (record.query, record.shape) == ("what is a panda?", Shape.HITS)
    assert [candidate.text for candidate in record.candidates] == ["hi", PANDA]
    assert record.extra == {"result": "A bear."}


def test_a_multi_search_is_one_record_for_each_search(read, write):
    asked = load("elasticsearch.msearch.json") | {"queries": ["what is a panda?", "nothing", "gone"]}
    first, empty, gone, following = read(write(asked, load("elasticsearch.search.json") | {"query": "q"}))
    assert (first.query, len(first.candidates), first.id) == ("what is a panda?", 2, "rerank-1")
    assert (empty.query, empty.candidates, empty.id) == ("nothing", (), "rerank-2")
    assert (gone.code, gone.id) == ("response_error", "rerank-3")
    assert gone.message.startswith("search 2: the response is an error (got ")
    assert following.id == "rerank-4"
    assert first.position.place == empty.position.place == gone.position.place != following.position.place


def test_each_search_may_have_its_query_in_itself(read, write):
    batch = load("qdrant.batch.json")
    batch["result"] = [{"query": f"q{n}", **search} for n, search in enumerate(batch["result"])]
    first, second = read(write(batch))
    assert [(r.query, len(r.candidates)) for r in (first, second)] == [("q0", 2), ("q1", 0)]


@pytest.mark.parametrize(
    ("queries", "code"), [(None, "missing_query"), (["a", "b"], "bad_queries"), (["a", None, "c"], "missing_query")]
)
def test_a_multi_search_needs_a_query_for_each_search(read, write, queries, code):
    records = read(write(load("elasticsearch.msearch.json") | {"queries": queries}))
    assert code in [record.code for record in records if isinstance(record, Rejection)]


def test_a_query_of_the_caller_is_for_one_response(read, write):
    response = load("elasticsearch.search.json")
    first, second = read(write(response, response), **ASKED)
    assert isinstance(first, Request)
    assert (second.code, "record 2" in second.message) == ("query_used", True)


def test_the_query_of_the_caller_is_for_the_rows_of_all_files(read):
    (record,) = read(str(FILES / "pgvector.rows.jsonl"), str(FILES / "pgvector.rows.jsonl"), **ASKED)[:1]
    assert record.code == "duplicate_id"
    (record,) = read(str(FILES / "langchain.documents.json"), str(FILES / "pgvector.rows.jsonl"), **ASKED)
    assert [candidate.id for candidate in record.candidates] == ["a", "b", 7, 9]


@pytest.mark.parametrize(
    "record",
    [{"query": "own", "documents": ["a"]}, {"query": "own", "hits": {"hits": []}}, {"text_1": "own", "text_2": ["a"]}],
)
def test_two_queries_contradict_each_other(only, record):
    assert only(record, **ASKED).code == "two_queries"


def test_documents_without_a_query_take_that_of_the_caller(only):
    record = only({"documents": ["a", "b"]}, **ASKED)
    assert (record.query, record.shape) == ("what is a panda?", Shape.RERANK)


def test_a_column_named_question_is_a_column_of_rows_with_the_query_of_the_caller(read, write):
    rows = [{"id": n, "question": f"q{n}", "answer": f"a{n}"} for n in range(2)]
    (record,) = read(write(*rows), text_field="question,answer", **ASKED)
    assert [candidate.text for candidate in record.candidates] == ["q0 a0", "q1 a1"]
    assert record.candidates[0].source == rows[0]


def test_a_response_without_a_query_is_told_how_to_give_one(read):
    (record,) = read(str(FILES / "elasticsearch.search.json"))
    assert record.code == "missing_query"
    assert "--query TEXT" in record.message


@pytest.mark.parametrize("field", ["body", "_source.body"])
def test_a_text_field_is_found_inside_a_hit(read, field):
    (record,) = read(str(FILES / "elasticsearch.search.json"), text_field=field, **ASKED)
    assert record.candidates[1].text.endswith(PANDA)


def test_fields_of_a_hit_can_be_mapped(read):
    options = {"text_template": "{title}: {body}", "doc_id_field": "_source.title", "score_field": "_score"}
    (record,) = read(str(FILES / "elasticsearch.search.json"), **options, **ASKED)
    assert record.candidates[0].text == "Greeting: hi"
    assert [candidate.id for candidate in record.candidates] == ["Greeting", "Giant panda"]
    assert record.candidates[0].score == 1.3862942


def test_a_hit_without_a_known_text_says_which_fields_it_has(only):
    record = only({"query": "q", "hits": {"hits": [{"_index": "i", "_id": "1", "_source": {"words": "a"}}]}})
    assert record.code == "missing_text"
    assert "words" in record.message
    assert "--text-field" in record.message


@pytest.mark.parametrize(
    ("scores", "kept"), [([3, 2, 1], [3, 2, 1]), ([1, 2, 2], [None] * 3), ([2, 2, 2], [2] * 3), ([1, 3, 2], [1, 3, 2])]
)
def test_scores_that_rise_down_the_list_are_distances(read, write, scores, kept):
    rows = [{"id": n, "content": f"t{n}", "score": score} for n, score in enumerate(scores)]
    (record,) = read(write(*rows), **ASKED)
    assert [candidate.score for candidate in record.candidates] == kept
    (mapped,) = read(write(*rows), score_field="score", **ASKED)
    assert [candidate.score for candidate in mapped.candidates] == scores


def test_hits_of_two_lists_are_refused(only):
    hit = {"_additional": {"id": "1"}, "content": "a"}
    assert only({"query": "q", "data": {"Get": {"A": [hit], "B": [hit]}}}).code == "bad_documents"


@pytest.mark.parametrize(
    "response",
    [
        {"error": {"type": "index_not_found_exception"}, "status": 404},
        {"data": {"Get": {"Article": None}}, "errors": [{"message": "no such property"}]},
        {"root": {"id": "toplevel", "fields": {"totalCount": 0}, "errors": [{"code": 12, "summary": "Timed out"}]}},
        {"status": {"error": "Not found: Collection `x` doesn't exist!"}, "time": 0.1},
        {"responseHeader": {"status": 400}, "error": {"msg": "undefined field x", "code": 400}},
    ],
)
def test_a_response_that_is_an_error_is_no_search_without_hits(only, response):
    for record in (only(response, **ASKED), only(response | ASKED)):
        assert record.code == "response_error"


def test_a_response_without_errors_may_say_so(only):
    record = only({"query": "q", "errors": [], "error": None, "hits": {"hits": []}})
    assert record.candidates == ()


def test_hits_with_one_id_are_refused(only):
    hit = {"_index": "i", "_id": "1", "_source": {"body": "a"}}
    assert only({"query": "q", "hits": {"hits": [hit, hit]}}).code == "duplicate_id"


def test_a_file_keeps_the_shape_of_its_first_response(read, write):
    good, bad = read(write(load("elasticsearch.search.json") | {"query": "q"}, {"query": "q", "documents": ["a"]}))
    assert (good.shape, bad.code) == (Shape.HITS, "wrong_shape")


@pytest.mark.parametrize("options", [{"query": " "}, {"query": "q", "query_field": "ask"}])
def test_a_query_is_not_empty_and_excludes_a_field(write, options):
    with pytest.raises(UsageError, match="--query"):
        open_source(InputOptions((write({"documents": ["a"]}),), **options))


def test_a_parquet_table_of_hits_takes_the_query_of_the_caller(tmp_path, read):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": [7, 9], "content": ["hi", PANDA], "distance": [0.1, 0.2]}), path)
    (record,) = read(str(path), **ASKED)
    assert [(c.id, c.text, c.score) for c in record.candidates] == [(7, "hi", None), (9, PANDA, None)]
    pq.write_table(pa.table({"query": ["q"], "hits": [{"hits": [{"_id": "1", "_source": {"body": "a"}}]}]}), path)
    with pytest.raises(InputError, match="read from JSON"):
        open_source(InputOptions((str(path),)))
