"""`--sort`: rows of pairs in any order become groups, in memory and through temporary files alike."""

import errno
import random
import tracemalloc

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_cli.errors import OutputError, UsageError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.reading import sorting as sorting_module
from rerank_cli.records import Place, Rejection, Request, Shape


def pair(query, number):
    return {"query_id": query, "query": f"query {query}", "docid": f"{query}-{number}", "text": f"text {number} ü"}


def shuffled(queries, documents, seed=3):
    rows = [pair(query, number) for query in range(queries) for number in range(documents)]
    random.Random(seed).shuffle(rows)
    return rows


def expected(rows):
    groups = {}
    for row in rows:
        groups.setdefault(row["query_id"], []).append(row["docid"])
    return list(groups.items())


def grouped(records):
    assert all(isinstance(record, Request) for record in records)
    return [(record.id, [candidate.id for candidate in record.candidates]) for record in records]


@pytest.fixture(params=["in memory", "in blocks"])
def anywhere(request, monkeypatch):
    """Everything in one block, or a handful of rows a block and blocks merged in several rounds."""
    if request.param == "in blocks":
        monkeypatch.setattr(sorting_module, "_BLOCK_BYTES", 700)
        monkeypatch.setattr(sorting_module, "_FAN_IN", 3)


@pytest.mark.usefixtures("anywhere")
def test_queries_come_in_order_of_appearance_and_their_rows_in_input_order(read, write):
    rows = shuffled(20, 10)
    assert grouped(read(write(*rows), sort=True)) == expected(rows)


def test_without_it_the_error_names_the_flag(read, write):
    codes = {r.code: r.message for r in read(write(pair(1, 0), pair(2, 0), pair(1, 1))) if isinstance(r, Rejection)}
    assert "Fix: --sort" in codes["query_returned"]


@pytest.mark.usefixtures("anywhere")
def test_tab_separated_rows_of_several_files_are_sorted_together(read, tmp_path):
    rows = shuffled(9, 6)
    paths = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    for path, part in zip(paths, (rows[:30], rows[30:]), strict=True):
        path.write_text("".join(f"{r['query_id']}\t{r['docid']}\t{r['query']}\t{r['text']}\n" for r in part))
    assert grouped(read(*map(str, paths), sort=True)) == [(str(q), ids) for q, ids in expected(rows)]


@pytest.mark.usefixtures("anywhere")
def test_parquet_rows_keep_their_values_of_all_types(read, tmp_path):
    rows = [row | {"when": pa.scalar(n, pa.timestamp("us")).as_py()} for n, row in enumerate(shuffled(5, 4))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=3)
    records = read(str(tmp_path / "in.parquet"), sort=True)
    assert grouped(records) == expected(rows)
    found = [candidate.source.row for record in records for candidate in record.candidates]
    assert sorted(found, key=lambda row: row["docid"]) == sorted(rows, key=lambda row: row["docid"])


@pytest.mark.usefixtures("anywhere")
def test_bad_rows_are_rejected_with_the_line_they_stand_in(read, write):
    rows = [pair(1, 0), b"broken\n", pair(2, 0), {"query_id": 1, "query": "query 1"}, pair(1, 1)]
    records = read(write(*rows), sort=True)
    assert [(r.code, r.position.line) for r in records if isinstance(r, Rejection)] == [
        ("missing_text", 4),
        ("bad_json", 2),
    ]
    assert grouped([r for r in records if isinstance(r, Request)]) == [(1, ["1-0", "1-1"]), (2, ["2-0"])]


@pytest.mark.usefixtures("anywhere")
def test_from_every_place_the_rest_comes_out(write, tmp_path):
    paths = (write(*shuffled(12, 5), b"broken\n"), write(*shuffled(15, 3, seed=4), name="more.jsonl"))
    records = list(open_source(InputOptions(paths, sort=True)))
    places = [record.position.place for record in records]
    assert len(set(places)) > 10
    for place in set(places):
        source = open_source(InputOptions(paths, sort=True))
        source.keep_memory_in(tmp_path / "log")
        first = places.index(place)
        assert source.go_to(place, first, Shape.PAIRS, None)
        assert list(source) == records[first:]


def test_a_place_stands_for_all_inputs(write):
    paths = (write(pair(1, 0)), write(pair(1, 1), name="more.jsonl"))
    (record,) = open_source(InputOptions(paths, sort=True))
    assert record.position.place == Place(1, 0)


def test_what_was_read_counts_by_the_rows_that_came_out(write):
    source = open_source(InputOptions((write(*shuffled(10, 10)),), sort=True))
    records = iter(source)
    for _ in range(5):
        next(records)
    assert 0.3 < source.bytes_read / source.total_bytes < 0.7
    list(records)
    assert source.bytes_read == source.total_bytes


def test_records_of_another_shape_are_no_rows_to_sort(read, write):
    (record,) = read(write({"query": "q", "documents": ["d"]}), sort=True)
    assert record.code == "wrong_shape"
    with pytest.raises(UsageError, match="--sort"):
        read(write(pair(1, 0)), sort=True, shape=Shape.RERANK)


def test_a_full_disk_for_temporary_files_is_one_line(read, write, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sorting_module, "_BLOCK_BYTES", 100)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match="No space left"):
        read(write(*shuffled(3, 3)), sort=True)


def test_an_empty_input_has_nothing_to_sort(read, write):
    assert read(write(orjson.dumps(pair(1, 0))[:0]), sort=True) == []


def test_memory_does_not_grow_with_the_input(write, monkeypatch):
    monkeypatch.setattr(sorting_module, "_BLOCK_BYTES", 1 << 18)
    monkeypatch.setattr(sorting_module, "_BUFFER", 1 << 14)
    path = write(*(pair(n % 100, n) | {"text": "x" * 1000} for n in range(6_000)))
    tracemalloc.start()
    count = sum(len(record.candidates) for record in open_source(InputOptions((path,), sort=True)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 6_000
    assert peak < 4_000_000
