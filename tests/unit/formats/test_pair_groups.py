import pytest

from rerank_cli.errors import InputError, UsageError
from rerank_cli.records import Rejection, Request, Shape


def row(query_id, docid, query=None, **more):
    return {
        "query_id": query_id,
        "query": query or f"query {query_id}",
        "docid": docid,
        "text": f"text {docid}",
        **more,
    }


def summary(records):
    return [
        (r.id, [c.id for c in r.candidates]) if isinstance(r, Request) else (r.code, r.position.line) for r in records
    ]


def test_rows_of_one_query_become_one_request(read, write):
    records = read(write(row(1, "a"), row(1, "b"), row(2, "a")))
    assert summary(records) == [(1, ["a", "b"]), (2, ["a"])]
    assert [r.position.line for r in records] == [1, 3]
    assert all(r.shape is Shape.PAIRS for r in records)


def test_the_source_of_a_candidate_is_its_row_without_the_query(read, write):
    (record,) = read(write(row(1, "a", title="T", score=2)))
    (candidate,) = record.candidates
    assert candidate.source == {"docid": "a", "text": "text a", "title": "T", "score": 2}
    assert (candidate.text, candidate.score) == ("T text a", 2.0)


def test_rows_without_a_query_id_are_grouped_by_the_text(read, write):
    rows = [{"query": "x", "text": "1"}, {"query": "x", "text": "2"}, {"query": "y", "text": "3"}]
    records = read(write(*rows))
    assert [(r.query, len(r.candidates), r.id) for r in records] == [("x", 2, "rerank-1"), ("y", 1, "rerank-2")]


def test_the_same_text_under_another_id_is_another_query(read, write):
    assert summary(read(write(row(1, "a", "q"), row(2, "a", "q")))) == [(1, ["a"]), (2, ["a"])]


def test_an_id_is_not_taken_for_a_text(read, write):
    rows = [{"query": "x", "text": "1"}, {"query_id": "x", "query": "y", "text": "2"}]
    assert [r.query for r in read(write(*rows))] == ["x", "y"]


def test_a_query_that_comes_back_is_rejected_naming_both_places(read, write):
    path = write(row(1, "a"), row(2, "a"), row(1, "b"), row(2, "b"))
    records = read(path)
    assert summary(records) == [(1, ["a"]), ("query_returned", 3), (2, ["a", "b"])]
    bad = next(r for r in records if isinstance(r, Rejection))
    assert f"first at {path}:1" in bad.message
    assert str(bad).startswith(f"{path}:3: ")


def test_a_query_that_comes_back_in_a_later_file_is_rejected_too(read, write):
    records = read(write(row(1, "a"), row(2, "a"), name="a.jsonl"), write(row(2, "b"), row(1, "c"), name="b.jsonl"))
    assert summary(records) == [(1, ["a"]), ("query_returned", 2), (2, ["a", "b"])]


def test_another_text_under_the_same_id_is_a_bad_row(read, write):
    assert summary(read(write(row(1, "a"), row(1, "b", "changed"), row(1, "c")))) == [
        ("query_changed", 2),
        (1, ["a", "c"]),
    ]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"{\n", "bad_json"),
        (row(1, "x") | {"text": None}, "null_text"),
        (row(1, "a"), "duplicate_id"),
        (row(1, "x") | {"query": " "}, "empty_query"),
        ({"query_id": 1, "query": "query 1", "documents": ["a"]}, "wrong_shape"),
        ([1], "not_an_object"),
        (row([1], "x"), "bad_id"),
    ],
)
def test_a_bad_row_is_rejected_alone_and_its_group_goes_on(read, write, bad, code):
    assert summary(read(write(row(1, "a"), bad, row(1, "b")))) == [(code, 2), (1, ["a", "b"])]


def test_a_bad_row_keeps_the_id_of_its_query(read, write):
    assert read(write(row(5, "a"), row(5, "b") | {"text": 1}))[0].id == 5


def test_a_bare_id_names_the_document_where_the_query_has_a_column_of_its_own(read, write):
    (record,) = read(write({"qid": 1, "query": "q", "_id": "d", "text": "a"}))
    assert (record.id, record.candidates[0].id) == (1, "d")


def test_a_bare_id_names_nothing_where_it_could_be_either(read, write):
    (record,) = read(write({"id": 1, "query": "q", "text": "a"}, {"id": 1, "query": "q", "text": "b"}))
    assert [c.id for c in record.candidates] == [None, None]


def test_pair_columns_can_be_mapped(read, write):
    rows = [{"topic": 1, "words": "q", "key": k, "said": k} for k in "ab"]
    options = {"query_field": "words", "text_field": "said", "id_field": "topic", "doc_id_field": "key"}
    (record,) = read(write(*rows), **options)
    assert (record.id, record.query, [c.id for c in record.candidates]) == (1, "q", ["a", "b"])


def test_a_mapped_path_is_looked_up_in_every_row(read, write):
    rows = [{"query": "q", "text": "a", "meta": {}}, {"query": "q", "text": "b", "meta": {"qid": 5}}]
    assert [r.id for r in read(write(*rows), id_field="meta.qid")] == ["rerank-1", 5]


def test_tab_separated_rows_with_a_header_are_read_by_name(read, write):
    path = write(b'docid\tquery_id\tquery\ttitle\ttext\tscore\nd1\tq1\tasks\tT\tsays "so"\t2.5\n', name="p.tsv")
    (record,) = read(path)
    assert (record.id, record.query) == ("q1", "asks")
    (candidate,) = record.candidates
    assert (candidate.id, candidate.text, candidate.score) == ("d1", 'T says "so"', 2.5)


def test_tab_separated_rows_without_a_header_are_those_of_ms_marco(read, write):
    path = write(b'1\t10\tasks "it\tsays "it\r\n1\t11\tasks "it\tother\r\n', name="top1000.dev.tsv")
    (record,) = read(path)
    assert (record.id, record.query) == ("1", 'asks "it')
    assert [(c.id, c.text) for c in record.candidates] == [("10", 'says "it'), ("11", "other")]


def test_a_forced_shape_reads_tabs_under_any_name(read, write):
    (record,) = read(write(b"1\t10\tasks\tsays\n", name="top1000.dev"), shape=Shape.PAIRS)
    assert record.candidates[0].text == "says"


def test_a_row_with_missing_cells_is_rejected(read, write):
    bad, good = read(write(b"1\t10\tasks\tsays\n1\t11\tasks\n", name="p.tsv"))
    assert (bad.code, bad.position.line) == ("bad_columns", 2)
    assert len(good.candidates) == 1


def test_columns_that_cannot_be_told_are_refused(read, write):
    with pytest.raises(InputError, match="got 3 columns without a header"):
        read(write(b"1\t2\t3\n", name="p.tsv"))


def test_tabs_in_another_shape_are_refused(read, write):
    with pytest.raises(UsageError, match="pairs only"):
        read(write(b"1\t10\tasks\tsays\n", name="p.tsv"), shape=Shape.RERANK)
