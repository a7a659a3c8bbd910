"""Arrow IPC: streams and files, which are Feather version 2."""

import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_cli.errors import InputError
from rerank_cli.records import Rejection, Shape

CONTAINERS = {"stream": pa.ipc.new_stream, "file": pa.ipc.new_file}
PAIRS = [{"query_id": q, "query": f"query {q}", "docid": d, "text": f"text {d}"} for q in range(3) for d in range(4)]
REQUESTS = [
    {"id": n, "query": "q", "documents": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]} for n in range(3)
]


@pytest.fixture(params=CONTAINERS)
def arrow(request, tmp_path):
    def arrow(rows, name="in.arrow", rows_in_batch=3, **options):
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
        path = tmp_path / name
        with CONTAINERS[request.param](path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            writer.write_table(table, max_chunksize=rows_in_batch)
        return path

    return arrow


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("name", ["in.arrow", "in.feather", "in.csv", "in"])
def test_pairs_are_grouped_over_batches(open_files, arrow, compression, name):
    source = open_files(arrow(PAIRS, name, compression=compression))
    assert source.description == "Arrow, pairs"
    assert [(r.id, len(r.candidates), r.position.line) for r in source] == [(0, 4, 1), (1, 4, 5), (2, 4, 9)]
    assert source.bytes_read == source.total_bytes


def test_nested_requests_are_read(read, arrow):
    records = read(str(arrow(REQUESTS)))
    assert [r.id for r in records] == [0, 1, 2]
    assert [(c.id, c.text) for c in records[0].candidates] == [("a", "x"), ("b", "y")]


def test_stdin_may_be_arrow(read, monkeypatch, arrow):
    with open(arrow(PAIRS), "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert [r.id for r in read("-")] == [0, 1, 2]


def test_progress_counts_the_rows_of_a_batch(open_files, arrow):
    source = open_files(arrow(PAIRS * 1, rows_in_batch=1000))
    seen = [source.bytes_read for _ in source]
    assert 0 < seen[0] < seen[1] < seen[2] <= source.total_bytes
    assert seen == sorted(set(seen))


def test_an_empty_table_has_no_records(read, arrow):
    assert read(str(arrow(pa.Table.from_pylist(PAIRS).slice(0, 0)))) == []


def test_one_batch_is_in_memory_at_a_time(open_files, arrow):
    rows = [{"query": f"q{n}", "documents": ["x" * 100_000]} for n in range(200)]
    source = open_files(arrow(rows, rows_in_batch=4))
    del rows
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - before for _ in source)
    assert peak < 4_000_000
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("cut", [6, 20, 0.3, 0.6, 0.95])
def test_a_cut_file_is_one_error(read, arrow, cut):
    path = arrow(PAIRS)
    content = path.read_bytes()
    path.write_bytes(content[: cut if cut > 1 else int(len(content) * cut)])
    with pytest.raises(InputError, match=r"in\.arrow: (not a complete Arrow stream or file|the Arrow data is corrupt)"):
        read(str(path))


def test_a_row_with_invalid_text_is_rejected_alone(read, arrow):
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    table = pa.table({"query": ["q", "r", "s"], "text": texts})
    records = read(str(arrow(table)))
    assert [isinstance(record, Rejection) for record in records].count(True) == 1
    assert next(record.position.line for record in records if isinstance(record, Rejection)) == 2


def test_columns_that_cannot_be_used_are_named(read, arrow):
    with pytest.raises(InputError, match=r"no shape fits its columns \(got a, b;"):
        read(str(arrow([{"a": 1, "b": 2}])))


def test_output_in_parquet_keeps_the_types(open_files, arrow, save, ranking):
    rows = [{**row, "query_id": row["query_id"] + 2**40, "when": None} for row in PAIRS]
    types = [("query_id", pa.int64()), ("query", pa.string()), ("docid", pa.int16()), ("text", pa.large_string())]
    schema = pa.schema([*types, ("when", pa.timestamp("ns"))], metadata={"made by": "a test"})
    source = open_files(arrow(pa.Table.from_pylist(rows, schema)))
    request = next(iter(source))
    found = ranking([1, 2, 3, 4], candidates=request.candidates, id=request.id, shape=Shape.PAIRS)
    written = pq.read_table(save([found], "out.parquet", format="pairs", columns=source.columns, shape=Shape.PAIRS))
    assert [(field.name, field.type) for field in written.schema][:5] == [(f.name, f.type) for f in schema]
    assert written.schema.metadata[b"made by"] == b"a test"


def test_files_of_arrow_have_the_same_columns_and_do_not_mix_with_others(read, arrow, write):
    one, two = (str(arrow(PAIRS[at : at + 4], f"{at}.arrow")) for at in (0, 4))
    assert [record.id for record in read(one, two)] == [0, 1]
    with pytest.raises(InputError, match=r"other\.arrow: its columns or their types differ"):
        read(one, str(arrow([{"query": "q", "text": "t"}], "other.arrow")))
    with pytest.raises(InputError, match=r"input\.jsonl: is not Arrow \(other inputs are\)"):
        read(one, write({"query": "q", "text": "t"}))


def test_offsets_out_of_bounds_are_one_error_not_a_crash(read, arrow):
    for offsets in ([0, 1 << 30, 1, 2], [0, -(1 << 30), 1, 2], [0, 2, 1, 2]):
        text = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(np.int32(offsets)), pa.py_buffer(b"ab")])
        nested = pa.StructArray.from_arrays([pa.array([b"\xff", b"a", b"b"]).view(pa.string()), text], ["id", "text"])
        documents = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), nested)
        for column in ({"text": text}, {"documents": documents}):
            with pytest.raises(InputError, match=r"in\.arrow: the Arrow data is corrupt"):
                read(str(arrow(pa.table({"query": ["q", "r", "s"], **column}))))


def test_a_column_name_that_is_not_utf8_is_one_error(read, arrow):
    path = arrow(pa.table({"query": ["q"], "text": ["t"], "xyzzy": [1]}))
    path.write_bytes(path.read_bytes().replace(b"xyzzy", b"\xffyzzy"))
    with pytest.raises(InputError, match=r"in\.arrow: not a complete Arrow stream or file"):
        read(str(path))
