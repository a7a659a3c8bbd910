"""Reading may begin at any record's place, and then yields what stood there and after it."""

import bz2
import csv
import gzip
import io
import json
import lzma

import lz4.frame
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.records import Place, Rejection, Shape

PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".lz4": lz4.frame.compress,
    ".xz": lzma.compress,
}


def lines(*records):
    return b"".join(r if isinstance(r, bytes) else orjson.dumps(r) + b"\n" for r in records)


def requests(count, start=0):
    return [{"query": f"q{i}", "documents": [f"d{i} {'x' * (i % 7)}"]} for i in range(start, start + count)]


def pair(query, text, **more):
    return {"query_id": query, "query": f"query {query}", "text": text, **more}


PAIRS = [
    pair(0, "a"),
    pair(0, "b"),
    {"query_id": 0},
    pair(0, "c"),
    b"broken\n",
    pair(1, "d"),
    {"text": 3},
    pair(1, "e"),
]
PAIRS += [pair(0, "back"), pair(2, "f"), pair(2, "g"), pair(1, "back"), pair(3, "h")]
MIXED = [
    b"\xef\xbb\xbf\n",
    *requests(3),
    b"not json\n",
    b"\r\n",
    *requests(2, 3),
    b'{"query": 1}\n',
    *requests(2, 5),
    b"torn",
]


def read_from(paths, log, *where):
    source = open_source(InputOptions(tuple(paths)))
    source.keep_memory_in(log)
    try:
        assert source.go_to(*where)
        return list(source), source
    finally:
        source.close()


def check_every_place(paths, tmp_path, shape):
    """From every place the rest comes out, ids and all; of pairs, what was seen before is known from the log."""
    log = tmp_path / "log"
    whole = open_source(InputOptions(tuple(paths)))
    whole.keep_memory_in(log)
    records = list(whole)
    kept = whole.sync()
    entries = log.read_bytes() if log.exists() else b""
    places = [record.position.place for record in records]
    assert len(set(places)) > 3
    for place in set(places):
        log.write_bytes(entries + b"torn")
        first = places.index(place)
        rest, source = read_from(paths, log, place, first, shape, kept)
        assert rest == records[first:]
        assert [record.position.line for record in rest] == [record.position.line for record in records[first:]]
        assert source.bytes_read == source.total_bytes
    return records


@pytest.mark.parametrize("suffix", PACK)
def test_lines(tmp_path, suffix):
    paths = [str(tmp_path / f"{name}.jsonl{suffix}") for name in "ab"]
    for path, content in zip(paths, (lines(*MIXED), lines(*requests(4, 20))), strict=True):
        with open(path, "wb") as file:
            file.write(PACK[suffix](content))
    records = check_every_place(paths, tmp_path, Shape.RERANK)
    assert sum(isinstance(record, Rejection) for record in records) == 3


@pytest.mark.parametrize("suffix", PACK)
def test_pairs_with_bad_rows_inside_their_groups(tmp_path, suffix):
    paths = [str(tmp_path / f"{name}.jsonl{suffix}") for name in "ab"]
    for path, content in zip(paths, (lines(*PAIRS), lines(pair(3, "i"), pair(4, "j"), pair(2, "back"))), strict=True):
        with open(path, "wb") as file:
            file.write(PACK[suffix](content))
    records = check_every_place(paths, tmp_path, Shape.PAIRS)
    assert [r.code for r in records if isinstance(r, Rejection)].count("query_returned") == 3


@pytest.mark.parametrize("header", ["query_id\tdocid\tquery\ttext\n", ""])
def test_tab_separated_pairs(tmp_path, header):
    path = tmp_path / "in.tsv"
    path.write_text(header + "".join(f"{q}\t{q}{d}\tquery {q}\ttext {d}\n" for q in range(5) for d in range(3)))
    check_every_place([str(path)], tmp_path, Shape.PAIRS)


CELLS = ["text", "two\nlines", 'a "quote", and\r\nmore\n', "", " ", ";\t|"]
TABLE = [(str(q), f"query\n{q}", f"d{n}", CELLS[(q + n) % 6], n / 2) for q in range(6) for n in range(q % 3 + 1)]
NAMES = ("query_id", "query", "docid", "text", "score")


def as_csv(rows, delimiter=",", begin="\ufeff", end="\n"):
    file = io.StringIO(begin, newline="")
    file.seek(0, io.SEEK_END)
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows([NAMES, *rows])
    return file.getvalue().encode()


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("dialect", [{}, {"delimiter": ";", "begin": "sep=;\n"}, {"delimiter": "\t", "end": "\r\n"}])
def test_csv_with_bad_rows_and_line_breaks_in_cells(tmp_path, suffix, dialect):
    delimiter = dialect.get("delimiter", ",")
    bad = [b"too few" + delimiter.encode() + b"cells\n", b"\n", b'"stray"quote\n']
    content = as_csv(TABLE[:5], **dialect) + b"".join(bad) + as_csv(TABLE[5:], **dialect).split(b"score")[1].lstrip()
    path = tmp_path / f"in.csv{suffix}"
    path.write_bytes(PACK[suffix](content))
    records = check_every_place([str(path)], tmp_path, Shape.PAIRS)
    assert [r.code for r in records if isinstance(r, Rejection)] == ["bad_columns", "bad_csv"]
    texts = [c.text for r in records if not isinstance(r, Rejection) for c in r.candidates]
    assert texts == [row[3] for row in TABLE]


@pytest.mark.parametrize("container", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("rows_in_batch", [1, 2, 1000])
def test_arrow_of_pairs(tmp_path, container, suffix, rows_in_batch):
    table = pa.table(dict(zip(NAMES, map(list, zip(*TABLE, strict=True)), strict=True)))
    paths = [str(tmp_path / f"{name}.arrow{suffix}") for name in "ab"]
    for path, part in zip(paths, (table.slice(0, 7), table.slice(7)), strict=True):
        file = io.BytesIO()
        with container(file, table.schema) as writer:
            writer.write_table(part, max_chunksize=rows_in_batch)
        with open(path, "wb") as out:
            out.write(PACK[suffix](file.getvalue()))
    check_every_place(paths, tmp_path, Shape.PAIRS)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("indent", [1, 4])
def test_objects_over_several_lines(tmp_path, suffix, indent):
    path = tmp_path / f"in.json{suffix}"
    records = [json.dumps(record, indent=indent).encode() for record in [*requests(3), {"query": 1}, *requests(3, 3)]]
    path.write_bytes(PACK[suffix](b"\xef\xbb\xbf" + b"\n".join(records) + b"\n"))
    found = check_every_place([str(path)], tmp_path, Shape.RERANK)
    assert [isinstance(record, Rejection) for record in found].index(True) == 3


@pytest.mark.parametrize("rows_in_group", [1, 3, 1000])
def test_parquet_of_requests(tmp_path, rows_in_group):
    paths = [str(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    for path in paths:
        pq.write_table(pa.Table.from_pylist(requests(50)), path, row_group_size=rows_in_group)
    check_every_place(paths, tmp_path, Shape.RERANK)


@pytest.mark.parametrize("rows_in_group", [2, 1000])
def test_parquet_of_pairs(tmp_path, rows_in_group):
    path = str(tmp_path / "in.parquet")
    rows = [pair(q, None if d == 1 else f"text {d}") for q in (0, 1, 2, 0, 3) for d in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=rows_in_group)
    check_every_place([path], tmp_path, Shape.PAIRS)


def test_many_queries_are_remembered_in_few_bytes(monkeypatch):
    monkeypatch.setattr("rerank_cli.formats.reading.query_log._RECENT", 64)
    seen = QueryLog()
    for number in range(1000):
        assert seen.first(number, Place(0, number)) == (0, number)
    for number in range(1000):
        assert seen.first(number, Place(1, number)) == (0, number)


@pytest.mark.parametrize("damage", [slice(-16), slice(16, None), slice(None, None, -1), slice(0)])
def test_a_damaged_log_is_not_restored(tmp_path, damage):
    log = tmp_path / "log"
    seen, again = QueryLog(), QueryLog()
    seen.keep_in(log)
    for number in range(10):
        seen.first(number, Place(0, number))
    kept = seen.sync()
    again.keep_in(log)
    log.write_bytes(log.read_bytes()[damage])
    assert not again.restore(kept)


def test_a_stream_has_no_places_to_go_to(monkeypatch, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(*requests(3)))
    with path.open("rb") as file:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": file, "fileno": file.fileno}))
        source = open_source(InputOptions(("-",)))
        assert not source.go_to(Place(0, 1, 10), 1, Shape.RERANK, None)
        source.close()
