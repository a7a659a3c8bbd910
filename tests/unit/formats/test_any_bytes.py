import io
import json
import os
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import SimpleNamespace

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import (
    ARRAYS,
    COMPRESS,
    RECORDS,
    TABLES,
    TEXTS,
    VALID,
    as_lines,
    as_parquet,
    damaged,
    json_text,
    lists_of,
    names,
    spoiled,
    tables,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rerank_cli.choices import OutputFormat
from rerank_cli.errors import RerankError
from rerank_cli.formats import AnswerOptions, ErrorsFile, InputOptions, OutputOptions, open_sink, open_source
from rerank_cli.records import Ranking, Rejection, Request, Shape

FIELDS = [f"{part}_field" for part in ("query", "documents", "text", "id", "doc_id")]
fields = st.dictionaries(st.sampled_from(FIELDS), st.lists(names, min_size=1, max_size=4).map(".".join), min_size=1)
quoted = st.sampled_from(['"a"', '"a ""b"""', '"a\nb"', '"', 'a"b', '"a"b', '"[""a""]"', '\\"', "\r\n"])
cells = names | st.sampled_from(["1", "2", "a", "", "nan", "-inf", "1e999", "1_0", "\r"])


def examples(count):
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=count, deadline=None, suppress_health_check=slow)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@pytest.fixture(scope="module")
def elsewhere():
    """Run something in a process of its own, which it may bring down."""
    limit = (resource.RLIMIT_AS, (16 << 30, 16 << 30))
    pools = []

    def elsewhere(*work):
        if not pools:
            pools.append(ProcessPoolExecutor(1, get_context("spawn"), resource.setrlimit, limit))
        try:
            return pools[0].submit(*work).result()
        except BrokenProcessPool:
            pools.pop().shutdown()
            raise

    yield elsewhere
    for pool in pools:
        pool.shutdown()


def is_one_line(text):
    return bool(text) and text.isprintable()


def survives(folder, content, name="in.jsonl", parquet=False, **options):
    """Read a file of these bytes, write all that it holds in every format, and return how many records there were."""
    path, records = folder / name, []
    path.write_bytes(content)
    source = failure = None
    try:
        source = open_source(InputOptions((str(path),), **options))
        records += source
    except RerankError as error:
        failure = error
    finally:
        if source:
            source.close()
    assert failure is None or (failure.exit_code in (2, 4) and is_one_line(str(failure)))
    assert all(isinstance(record, Request) or is_one_line(str(record)) for record in records)
    if records:
        check_written([ranked(record) for record in records], source, folder, parquet)
    return len(records)


def ranked(record):
    if isinstance(record, Rejection):
        return record
    count = len(record.candidates)
    return Ranking(record, [0.0] * count, range(count)[: record.top_n], 3)


def check_written(outcomes, source, folder, parquet):
    refused = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
    pairs = len(refused) + sum(len(outcome.order) for outcome in outcomes if isinstance(outcome, Ranking))
    rows = {OutputFormat.API: len(outcomes), OutputFormat.PAIRS: pairs, OutputFormat.OPENAI_BATCH: len(outcomes)}
    for format, count in rows.items():
        stdout = io.BytesIO()
        if pushed(outcomes, source, format, "-", stdout):
            assert len([orjson.loads(line) for line in stdout.getvalue().splitlines()]) == count
        path = folder / "out.parquet"
        if parquet and format is not OutputFormat.OPENAI_BATCH and pushed(outcomes, source, format, str(path)):
            assert pq.read_metadata(path).num_rows == count
    errors = ErrorsFile(str(folder / "errors.jsonl"))
    for rejection in refused:
        errors.write(rejection)
    errors.close()


def pushed(outcomes, source, format, path, stdout=None):
    options = OutputOptions(path, format, AnswerOptions("m"), keep_errors=True)
    sink = None
    try:
        sink = open_sink(options, columns=source.columns, shape=source.shape, stdout=stdout)
        sink.write(outcomes)
        sink.publish()
    except RerankError:
        return False
    finally:
        if sink:
            sink.abandon()
    return True


@examples(150)
@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_one_error(folder, content):
    survives(folder, content)


@examples(200)
@given(st.lists(json_text, min_size=1, max_size=4))
def test_any_json_values_are_records_or_one_error(folder, values):
    survives(folder, as_lines(values))


@examples(250)
@given(spoiled(), st.sampled_from([b"", *VALID]))
def test_a_record_with_one_wrong_value_is_written_or_rejected(folder, line, before):
    assert survives(folder, before + as_lines([line])) > 0


@examples(30)
@given(st.lists(spoiled(), min_size=1, max_size=3))
def test_any_record_that_is_read_has_a_place_in_parquet(folder, lines):
    survives(folder, as_lines(lines), parquet=True)


@examples(150)
@given(damaged(st.sampled_from(VALID)))
def test_a_damaged_file_is_records_or_one_error(folder, content):
    survives(folder, content)


@pytest.mark.parametrize("kind", COMPRESS)
@examples(80)
@given(members=st.lists(st.sampled_from(VALID), min_size=1, max_size=2), data=st.data())
def test_a_damaged_compressed_file_is_records_or_one_error(folder, kind, members, data):
    survives(folder, data.draw(damaged(st.just(b"".join(map(COMPRESS[kind], members))))))


@examples(200)
@given(st.lists(st.lists(cells, max_size=6).map("\t".join), max_size=6), st.sampled_from(["in.tsv", "in.txt"]))
def test_any_tab_separated_text_is_records_or_one_error(folder, lines, name):
    survives(folder, as_lines(lines), name, shape=Shape.PAIRS)


@examples(250)
@given(st.lists(st.lists(cells | quoted, max_size=6), max_size=6), st.sampled_from([",", ";", "\t"]), st.data())
def test_any_text_with_quotes_is_records_or_one_error(folder, rows, delimiter, data):
    lines = [delimiter.join(["query", "text", "score", "documents"]), *map(delimiter.join, rows)]
    content = data.draw(st.just(as_lines(lines)) | damaged(st.just(as_lines(lines))))
    survives(folder, content, "in.csv", parquet=True)


@examples(80)
@given(
    tables() | st.sampled_from(TABLES).map(pa.table), st.sampled_from([pa.ipc.new_stream, pa.ipc.new_file]), st.data()
)
def test_a_damaged_arrow_file_is_records_or_one_error(folder, elsewhere, table, container, data):
    file = io.BytesIO()
    with container(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    elsewhere(survives, folder, data.draw(damaged(st.just(file.getvalue()))))


@examples(80)
@example(as_parquet(pa.table(TABLES[0])).replace(b"documents", b"\xffocuments"))
@given(damaged(tables().map(as_parquet) | st.sampled_from(TABLES).map(pa.table).map(as_parquet)))
def test_a_damaged_parquet_file_is_records_or_one_error(folder, elsewhere, content):
    elsewhere(survives, folder, content)


@examples(150)
@example(pa.table({**TABLES[0], "uuids": lists_of(ARRAYS[-2])}))
@example(pa.table({**TABLES[1], "view": TEXTS.cast(pa.string_view())}))
@example(pa.table({**TABLES[1], "text": pa.array(["a", None, "b"]), "id": TEXTS.cast(pa.large_string())}))
@example(pa.table({**TABLES[0], "x": TEXTS}).append_column("x", lists_of(TEXTS)))
@given(tables())
def test_any_columns_are_records_or_one_error(folder, table):
    survives(folder, as_parquet(table), parquet=True)


def test_a_time_zone_that_pytz_does_not_know_is_a_bad_record(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytz", SimpleNamespace(timezone={}.__getitem__, utc=None, FixedOffset=None))
    times = pa.array([1, 2, 3], pa.timestamp("us", tz="No/Where"))
    assert survives(folder, as_parquet(pa.table({**TABLES[0], "when": times}))) == 3


@examples(150)
@example(json.dumps(RECORDS[0]), {"query_field": "\x1b\n"})
@example(json.dumps(RECORDS[0]), {"documents_field": "\udcff"})
@example(json.dumps(RECORDS[0]), {"text_field": "\udcff"})
@given(spoiled(), fields)
def test_any_field_names_give_records_or_one_error(folder, line, fields):
    survives(folder, as_lines([line]), **fields)


@examples(50)
@given(tables(), fields)
def test_any_column_names_give_records_or_one_error(folder, table, fields):
    survives(folder, as_parquet(table), parquet=True, **fields)


@pytest.mark.parametrize("shape", Shape)
@examples(60)
@given(
    content=st.sampled_from(VALID) | spoiled().map(lambda line: as_lines([line])) | tables().map(as_parquet),
    name=st.sampled_from(["in.jsonl", "in.jsonl", "in.tsv"]),
)
def test_any_file_read_as_a_given_shape_is_records_or_one_error(folder, shape, content, name):
    survives(folder, content, name, shape=shape)


FILES = {
    "good": as_parquet(pa.table(TABLES[0])),
    "a query returns": b"1\t1\tq\ta\n2\t1\tr\ta\n1\t2\tq\tb\n",
    "an array": b"[]",
    "half of Parquet": b"PAR1",
    "half of gzip": b"\x1f\x8b",
}


@pytest.mark.parametrize("name", [b"in\xff.tsv", b"in\n.tsv"])
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_any_file_name_gives_records_or_one_error(folder, name, content):
    survives(folder, content, os.fsdecode(name))
