import datetime as dt
import decimal
import io
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_cli.choices import OutputFormat, ScoreKind
from rerank_cli.errors import InputError
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions, open_sink, open_source
from rerank_cli.records import Ranking, Rejection, Request, Shape

NESTED = pa.table(
    {"id": [1, 2], "query": ["a", "b"], "documents": [["x", "y"], ["z"]], "lang": ["de", None], "top_n": [1, None]}
)
PAIRS = pa.table(
    {
        "qid": pa.array([1, 1, 2], pa.int64()),
        "query": pa.array(["a", "a", "b"], pa.large_string()),
        "docid": pa.array(["x", "y", "z"]).dictionary_encode(),
        "text": pa.array([b"t", b"u", b"v"], pa.binary()),
        "when": pa.array([1, 2, 3_000_000_001], pa.timestamp("ns")),
        "price": pa.array([decimal.Decimal("1.50")] * 3),
        "tags": pa.array([[1], [2], None], pa.list_(pa.int16())),
        "day": pa.array([dt.date(2024, 1, 1)] * 3),
    }
)


@pytest.fixture
def table(tmp_path):
    def table(columns, name="in.parquet", **options):
        path = tmp_path / name
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
        return str(path)

    return table


@pytest.fixture
def convert(tmp_path):
    """Read a file, rank each request backwards (the last candidate is best), and return the output's path."""

    def convert(path, name="out.parquet", format="api", commit_every=1, keep_errors=False, read=None, **answers):
        source = open_source(InputOptions((path,), **(read or {})))
        out = tmp_path / name
        options = OutputOptions(str(out), OutputFormat(format), AnswerOptions("m", **answers), keep_errors=keep_errors)
        sink = open_sink(options, columns=source.columns, shape=source.shape)
        for number, record in enumerate(source):
            sink.write([ranked(record)])
            if number % commit_every == 0:
                sink.commit()
        sink.publish()
        sink.abandon()
        source.close()
        return out

    return convert


def ranked(record):
    if isinstance(record, Rejection):
        return record
    count = len(record.candidates)
    logits = np.arange(count, dtype=np.float32).tolist()
    order = list(range(count)) if record.shape is Shape.SCORE else list(range(count))[::-1]
    return Ranking(record, logits, order[: record.top_n], 5)


def test_nested_requests_are_read_with_row_numbers(read, table):
    first, second = read(table(NESTED))
    assert (first.id, first.query, [c.text for c in first.candidates], first.top_n) == (1, "a", ["x", "y"], 1)
    assert (first.position.line, second.position.line, second.top_n) == (1, 2, None)
    assert (first.extra, second.extra) == ({"lang": "de"}, {"lang": None})


def test_nested_document_objects_are_read(read, table):
    documents = [[{"docid": 5, "title": "T", "text": "x"}, {"docid": 6, "title": None, "text": "y"}]]
    (record,) = read(table({"query": ["a"], "documents": documents}))
    assert [(c.id, c.text) for c in record.candidates] == [(5, "T x"), (6, "y")]


def test_anserini_candidates_are_read(read, table):
    rows = {"query": [{"qid": "7", "text": "a"}], "candidates": [[{"docid": "d", "score": 2.0, "doc": {"body": "x"}}]]}
    (record,) = read(table(rows))
    assert (record.shape, record.id, record.candidates[0].text) == (Shape.CANDIDATES, "7", "x")


def test_flat_rows_are_grouped_over_row_groups(read, table):
    first, second = read(table(PAIRS, row_group_size=1))
    assert [(r.id, len(r.candidates), r.position.line) for r in (first, second)] == [(1, 2, 1), (2, 1, 3)]
    assert [c.id for c in first.candidates] == ["x", "y"]
    assert first.candidates[0].text == "t"


def test_the_source_says_what_it_reads(table):
    path = table(NESTED)
    source = open_source(InputOptions((path,)))
    assert (source.description, source.shape) == ("Parquet, rerank", Shape.RERANK)
    assert source.columns.names == NESTED.schema.names
    assert len(list(source)) == 2
    source.close()
    assert source.bytes_read == source.total_bytes > 0


def test_json_input_has_no_columns(write):
    source = open_source(InputOptions((write({"query": "a", "documents": ["b"]}),)))
    source.close()
    assert source.columns is None


def test_stdin_may_be_parquet(read, monkeypatch):
    buffer = io.BytesIO()
    pq.write_table(NESTED, buffer)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(buffer.getvalue())))
    assert [r.id for r in read("-")] == [1, 2]


def test_memory_is_bounded_by_a_batch_not_by_the_row_group(table):
    rows = 3000
    path = table({"query": [f"q{i}" for i in range(rows)], "documents": [["x" * 5000] * 2] * rows})
    source = open_source(InputOptions((path,)))
    before = pa.total_allocated_bytes()
    peak = 0
    for _ in source:
        peak = max(peak, pa.total_allocated_bytes() - before)
    source.close()
    assert peak < 12_000_000 < rows * 10_000


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"query": ["a"], "answer": ["b"]}, "no shape fits its columns (got query, answer;"),
        ({"query": [3], "documents": [["b"]]}, "`query` is not a string (got a number). Its columns: query int64"),
        ({"query": ["a"], "documents": [[3]]}, "document 0 is a number"),
        ({"query": ["a"], "documents": ["b"]}, "`documents` is not a list"),
        ({"query": ["a"], "text": [1.5]}, "the text is not a string"),
        ({"query": ["a"], "documents": [[{"title": "b"}]]}, "there is no text"),
        ({"query": ["a"], "documents": [["b"]], "id": [[1]]}, "the id cannot be used"),
    ],
)
def test_columns_that_cannot_be_used_are_named_before_a_row_is_read(read, table, columns, part):
    with pytest.raises(InputError) as caught:
        read(table(columns))
    assert part in str(caught.value)


def test_a_mapped_column_that_is_missing_is_named(read, table):
    with pytest.raises(InputError, match=r"got id, query, documents, lang, top_n"):
        read(table(NESTED), query_field="ask")


def test_nulls_are_bad_records_of_their_row(read, table):
    rows = {"query": ["a", None, " ", "d"], "documents": [["x", None], ["x"], ["x"], None]}
    assert [r.code for r in read(table(rows))] == ["null_text", "missing_query", "empty_query", "no_candidates"]


def test_the_shape_is_told_by_the_columns_even_where_the_first_row_is_null(read, table):
    kind = pa.struct([("qid", pa.string()), ("text", pa.string())])
    queries = pa.array([None, {"qid": "1", "text": "a"}], kind)
    bad, good = read(table({"query": queries, "candidates": [["x"], ["x"]]}))
    assert (bad.code, good.shape) == ("missing_query", Shape.CANDIDATES)


def test_bytes_that_are_no_text_are_bad_records_of_their_row(read, table):
    texts = pa.array([b"good", b"\xff\xfe"], pa.binary())
    good, bad = sorted(read(table({"query": ["a", "b"], "text": texts})), key=lambda r: isinstance(r, Rejection))
    assert (good.query, bad.code, bad.position.line) == ("a", "bad_utf8", 2)


def test_a_string_column_with_invalid_text_is_rejected_row_by_row(read, table):
    broken = pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"ok", b"\xff"], pa.binary()).buffers()[1:]])
    records = read(table({"query": ["a", "b"], "documents": pa.ListArray.from_arrays([0, 1, 2], broken)}))
    assert [getattr(r, "code", None) for r in records] == [None, "bad_utf8"]


def test_a_cut_file_is_refused(read, table):
    path = table(NESTED)
    with open(path, "r+b") as file:
        file.truncate(200)
    with pytest.raises(InputError, match="not a complete Parquet file"):
        read(path)


def test_several_files_must_have_the_same_columns(read, table):
    with pytest.raises(InputError, match=r"b\.parquet: its columns or their types differ"):
        read(table(NESTED), table(NESTED.drop_columns(["lang"]), name="b.parquet"))


def test_several_files_are_read_as_one(read, table):
    rows = NESTED.drop_columns(["id"])
    assert [r.id for r in read(table(rows), table(rows, name="b.parquet"))] == [f"rerank-{n}" for n in (1, 2, 3, 4)]


def test_parquet_and_json_lines_do_not_mix(read, table, write):
    with pytest.raises(InputError, match=r"input\.jsonl: is not Parquet"):
        read(table(NESTED), write({"query": "a", "documents": ["b"]}))


def test_pairs_keep_every_column_with_its_type(convert, table):
    found = pq.read_table(convert(table(PAIRS), format="pairs", scores=ScoreKind.BOTH))
    plain = PAIRS.set_column(2, "docid", PAIRS["docid"].cast(pa.string()))
    assert found.drop_columns(["relevance_score", "logit", "rank"]).equals(
        plain.take([1, 0, 2]).cast(found.schema.remove_metadata().remove(10).remove(9).remove(8))
    )
    kept = {field.name: field.type for field in found.schema}
    assert kept["when"] == pa.timestamp("ns")
    assert kept["price"] == pa.decimal128(3, 2)
    assert kept["docid"] == pa.string()
    assert [kept[name] for name in ("relevance_score", "logit", "rank")] == [pa.float32(), pa.float32(), pa.int32()]
    assert found["rank"].to_pylist() == [1, 2, 1]
    assert found["logit"].to_pylist() == [1.0, 0.0, 0.0]


def test_the_model_is_noted_and_what_the_input_noted_is_kept(convert, table):
    noted = NESTED.replace_schema_metadata({"huggingface": "{}", "pandas": "{}"})
    notes = pq.read_schema(convert(table(noted))).metadata
    assert notes[b"rerank.model"] == b"m"
    assert notes[b"huggingface"] == b"{}"
    assert b"pandas" not in notes
    assert b"rerank.shape" not in notes


def test_no_column_of_the_output_carries_our_notes(convert, table):
    schema = pq.read_schema(convert(table(NESTED)))
    assert all(b"rerank.role" not in (field.metadata or {}) for field in schema)


def test_answers_keep_the_types_of_nested_input(convert, table):
    document = pa.struct([("docid", pa.int16()), ("text", pa.string()), ("n", pa.float32())])
    documents = pa.array([[{"docid": 1, "text": "x", "n": 0.5}]], pa.list_(document))
    lang = pa.array(["de"], pa.large_string())
    found = pq.read_table(
        convert(table({"id": pa.array([9], pa.int32()), "query": ["a"], "documents": documents, "l": lang}))
    )
    assert found.schema.field("id").type == pa.int32()
    assert found.schema.field("l").type == pa.large_string()
    assert found.schema.field("results").type.value_type.field("document").type == document
    (row,) = found.to_pylist()
    assert row["results"] == [{"index": 0, "document": {"docid": 1, "text": "x", "n": 0.5}, "relevance_score": 0.5}]


def test_json_lines_become_answers_of_fixed_columns(convert, write):
    documents = ["x", {"id": 5, "body": "b", "title": "T", "z": None, "score": 2}]
    found = pq.read_table(convert(write({"id": 1, "query": "a", "documents": documents, "foo": {"a": 1}})))
    (row,) = found.to_pylist()
    assert list(row) == ["id", "model", "usage", "results", "extra"]
    assert (row["id"], row["model"], row["usage"], row["extra"]) == ("1", "m", {"total_tokens": 5}, '{"foo":{"a":1}}')
    best, second = row["results"]
    assert best["document"] == {"id": "5", "text": "b", "title": "T", "extra": '{"z":null,"retrieval_score":2.0}'}
    assert second["document"] == {"id": None, "text": "x", "title": None, "extra": None}


def test_an_echoed_query_is_a_column_in_place_of_one_that_is_carried(convert, table, write):
    found = pq.read_table(convert(write({"id": 1, "query": "a", "documents": ["x"]}), query=True))
    assert found.schema.names == ["id", "query", "model", "usage", "results", "extra"]
    assert found.column("query").to_pylist() == ["a"]
    assert pq.read_table(convert(table(NESTED), query=True)).column("query").to_pylist() == ["a", "b"]
    given = table({"q": ["asked"], "documents": [["x"]], "query": [7]}, name="other.parquet")
    found = pq.read_table(convert(given, read={"query_field": "q"}, query=True))
    assert found.to_pylist()[0]["query"] == "asked"
    found = pq.read_table(convert(given, read={"query_field": "q"}))
    assert found.to_pylist()[0]["query"] == 7


def test_the_schema_does_not_depend_on_the_records(convert, write):
    one = convert(write({"query": "a", "documents": ["x"]}, name="a.jsonl"), name="a.parquet")
    other = {"query": "a", "documents": [{"id": 1, "text": "x", "k": {}}], "z": 1}
    assert pq.read_schema(one).equals(pq.read_schema(convert(write(other), name="b.parquet")))


def test_json_lines_become_pairs_of_fixed_columns(convert, write):
    rows = [{"qid": 1, "query": "a", "pid": n, "passage": f"p{n}", "title": ["odd"], "score": 1} for n in (1, 2)]
    found = pq.read_table(convert(write(*rows), format="pairs")).to_pylist()
    names = [
        "query_id",
        "query",
        "docid",
        "title",
        "text",
        "retrieval_score",
        "index",
        "relevance_score",
        "rank",
        "extra",
    ]
    assert list(found[0]) == names
    assert [(r["query_id"], r["docid"], r["text"], r["rank"], r["index"]) for r in found] == [
        ("1", "2", "p2", 1, 1),
        ("1", "1", "p1", 2, 0),
    ]
    assert (found[0]["title"], found[0]["extra"], found[0]["retrieval_score"]) == (None, '{"title":["odd"]}', 1.0)


def test_scores_have_rows_of_data(convert, write):
    (row,) = pq.read_table(convert(write({"text_1": "a", "text_2": ["x", "y"]}))).to_pylist()
    assert "results" not in row
    assert [(d["index"], d["object"]) for d in row["data"]] == [(0, "score"), (1, "score")]


def test_batches_may_hold_both_kinds_of_answers(convert, write):
    bodies = ({"query": "q", "documents": ["x"]}, {"text_1": "a", "text_2": "x"})
    path = write(*({"custom_id": n, "body": body} for n, body in enumerate(bodies)))
    first, second = pq.read_table(convert(path)).to_pylist()
    assert (len(first["results"]), first["data"], second["results"], len(second["data"])) == (1, None, None, 1)


def test_without_documents_results_hold_ids(convert, write):
    record = {"query": "a", "documents": ["x", {"id": 5, "text": "b", "score": 2}]}
    (row,) = pq.read_table(convert(write(record), documents=False)).to_pylist()
    assert [(r["id"], r["retrieval_score"]) for r in row["results"]] == [("5", 2.0), (None, None)]


def test_a_rejection_is_a_row_with_an_error(convert, write):
    path = write({"query": "a", "documents": ["x"]}, b"{\n", {"query": "a", "documents": ["x"]})
    rows = pq.read_table(convert(path, keep_errors=True)).to_pylist()
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "bad_json", None]
    assert rows[1]["id"] == "rerank-2"
    assert rows[1]["results"] is None


def test_a_column_named_error_is_kept_unless_errors_are(convert, table):
    rows = {"qid": [1], "query": ["q"], "text": ["t"], "error": [0.5]}
    assert pq.read_table(convert(table(rows), format="pairs"))["error"].to_pylist() == [0.5]
    assert pq.read_table(convert(table(rows), format="pairs", keep_errors=True))["error"].to_pylist() == [None]


def test_fields_with_our_names_do_not_disturb_the_columns(convert, write):
    record = {"query": "q", "documents": ["x"], "error": 1.5, "extra": "a", "results": 1, "rank": "z"}
    for format in ("api", "pairs"):
        assert pq.read_table(convert(write(record), format=format, keep_errors=True)).num_rows == 1


def test_an_output_without_rows_has_its_columns(convert, write):
    found = pq.read_table(convert(write(b"")))
    assert (found.num_rows, found.schema.names) == (0, ["id", "model", "usage", "results", "extra"])


def test_the_same_rows_give_the_same_bytes_however_they_were_committed(convert, write):
    documents = [{"text": f"text {n}", "id": n} for n in range(3)]
    path = write(*({"id": n, "query": "q", "documents": documents[: n % 3 + 1]} for n in range(300)))
    outputs = [convert(path, name=f"{every}.parquet", format="pairs", commit_every=every) for every in (70, 110, 1000)]
    first, *others = [output.read_bytes() for output in outputs]
    assert all(other == first for other in others)


def test_small_parts_become_one_row_group(convert, write):
    path = write(*({"query": f"q{n}", "documents": ["x"]} for n in range(20)))
    out = convert(path)
    assert pq.read_metadata(out).num_row_groups == 1
    assert pq.read_table(out).num_rows == 20


def test_row_groups_end_when_they_are_large(convert, write, monkeypatch):
    from rerank_cli.formats.writing import parquet_join

    monkeypatch.setattr(parquet_join, "_GROUP_ROWS", 256)
    out = convert(write({"query": "q", "documents": [f"x{n}" for n in range(600)]}), format="pairs")
    groups = pq.read_metadata(out)
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [256, 256, 88]
    assert pq.read_table(out)["rank"].to_pylist() == list(range(1, 601))


@pytest.fixture
def opened(tmp_path):
    def opened():
        options = OutputOptions(str(tmp_path / "out.parquet"), OutputFormat.API, AnswerOptions("m"))
        return open_sink(options, columns=None)

    return opened


def test_a_commit_finishes_one_part(opened, tmp_path, ranking):
    sink = opened()
    sink.write([ranking([1])])
    assert sink.commit().length == 1
    assert sink.commit().length == 1
    sink.write([ranking([1]), ranking([2])])
    assert sink.commit().length == 2
    parts = sorted((tmp_path / "out.parquet.partial").iterdir())
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet"]
    assert [pq.read_table(part).num_rows for part in parts] == [1, 2]
    assert not (tmp_path / "out.parquet").exists()
    sink.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_an_abandoned_part_leaves_the_committed_ones(opened, tmp_path, ranking):
    sink = opened()
    sink.write([ranking([1])])
    sink.commit()
    sink.write([ranking([1])])
    sink.abandon()
    assert pq.read_table(tmp_path / "out.parquet.partial" / "part-00000.parquet").num_rows == 1


def test_a_stale_folder_of_parts_is_emptied_of_ours_alone(opened, tmp_path, ranking):
    folder = tmp_path / "out.parquet.partial"
    folder.mkdir()
    (folder / "part-00009.parquet").write_text("stale")
    (folder / "notes.txt").write_text("mine")
    sink = opened()
    sink.write([ranking([1])])
    sink.publish()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 1


def test_every_request_of_a_table_survives_a_round_trip(convert, read, table):
    answered = convert(table(NESTED.drop_columns(["top_n"])))
    rows = pq.read_table(answered).to_pylist()
    assert [(row["id"], row["lang"]) for row in rows] == [(1, "de"), (2, None)]
    assert [[r["document"]["text"] for r in row["results"]] for row in rows] == [["y", "x"], ["z"]]
    assert all(isinstance(record, Request) for record in read(table(NESTED)))
