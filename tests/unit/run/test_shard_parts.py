"""The parts of any input: every record in one shard, in the chunks of a run without shards."""

import gzip
import itertools
import tempfile
from contextlib import closing
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.choices import InputFormat
from rerank_cli.errors import UsageError
from rerank_cli.formats import InputOptions, extent, open_source
from rerank_cli.run.chunks import ChunkCutter, InputHash
from rerank_cli.run.shard import Shard, by_name, parse
from rerank_cli.run.sharding.part import Part

requests = st.builds(
    lambda size, own, long: orjson.dumps(
        {"query": "q" * long, "documents": ["d"] * size} | ({"id": f"own-{size}"} if own else {})
    ),
    st.integers(0, 9),
    st.booleans(),
    st.integers(1, 60),
)
request_lines = st.lists(st.one_of(requests, st.sampled_from([b"", b"  ", b"broken", b'{"query": 1}'])), max_size=30)
pairs = st.builds(
    lambda query, named, text: orjson.dumps(
        {"query": f"query {query}", "text": "t" * text} | ({"query_id": query} if named else {})
    ),
    st.integers(0, 5),
    st.booleans(),
    st.integers(1, 40),
)
pair_lines = st.lists(st.one_of(pairs, st.sampled_from([b"broken", b'{"text": 3}'])), max_size=40)


def chunks_of(records, size):
    cutter = ChunkCutter(records, size, lambda: 0, InputHash())
    return [[(record, record.position.line) for record in chunk.records] for chunk in cutter]


def read(options, size, shard=None):
    with closing(open_source(options)) as source:
        if shard is None:
            return chunks_of(iter(source), size)
        before = source.go_near(shard.share_of(source.total_bytes)[0])
        return chunks_of(Part(shard, source.extent, lambda: size, before).of(iter(source)), size)


@pytest.fixture(autouse=True, scope="module")
def _small_sections():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extent, "SECTION_BYTES", 300)
        patch.setattr(extent, "SECTION_ROWS", 5)
        yield


def check(contents, count, size, suffix="", **options):
    """Shards have the chunks of one run, with its ids and line numbers; so none is lost and none is twice."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.jsonl{suffix}" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(gzip.compress(content) if suffix else content)
        given = InputOptions(tuple(map(str, paths)), format=InputFormat.JSONL, **options)
        parts = [read(given, size, Shard(index, count)) for index in range(count)]
        assert list(itertools.chain(*parts)) == read(given, size)
        return parts


@given(
    st.lists(request_lines, min_size=1, max_size=3),
    st.integers(1, 12),
    st.integers(1, 20),
    st.sampled_from(["", ".gz"]),
)
def test_shards_of_requests_have_the_chunks_of_one_run(files, count, size, suffix):
    check([b"".join(line + b"\n" for line in lines) for lines in files], count, size, suffix)


@given(st.lists(pair_lines, min_size=1, max_size=2), st.integers(1, 12), st.integers(1, 20), st.booleans())
def test_shards_of_pairs_have_whole_queries(files, count, size, sort):
    check([b"".join(line + b"\n" for line in lines) for lines in files], count, size, sort=sort)


def test_a_shard_reads_from_the_last_section_before_it(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [orjson.dumps({"query": f"q{i}", "documents": ["d"] * 4}) + b"\n \n" * (i % 2) for i in range(200)]
    path.write_bytes(b"\xef\xbb\xbf \n" + b"\n".join(rows))
    with closing(open_source(InputOptions((str(path),)))) as source:
        half = path.stat().st_size // 2
        before = source.go_near(half)
        first = next(iter(source))
    assert before > 80
    assert (first.query, first.id) == (f"q{before}", f"rerank-{before + 1}")
    assert path.read_bytes().splitlines()[first.position.line - 1].startswith(f'{{"query":"q{before}"'.encode())
    assert half - 300 - 60 < first.position.place.offset < half


@pytest.mark.parametrize("end", [b"", b"\n\n \n" + b" " * 400 + b"\n"])
def test_a_last_section_in_which_no_record_begins(end):
    """The first record of the next file begins no section: what is before it has to be known."""
    record = orjson.dumps({"query": "q", "documents": ["d"]})
    long = orjson.dumps({"query": "q" * 700, "documents": ["d"]})
    check([b"\n".join([*[record] * 15, long]) + end, b"\n".join([record] * 9)], 7, 5)


def test_shards_of_a_table_have_the_chunks_of_one_run(tmp_path):
    rows = [{"query": f"q{i}", "documents": ["d"] * (i % 5)} for i in range(60)]
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for path in paths:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    given = InputOptions(tuple(map(str, paths)))
    parts = [read(given, 6, Shard(index, 5)) for index in range(5)]
    assert list(itertools.chain(*parts)) == read(given, 6)
    with closing(open_source(given)) as source:
        assert source.go_near(source.total_bytes * 3 // 4) in range(80, 91)


def test_shards_are_about_equal():
    content = b"".join(orjson.dumps({"query": f"q{i}", "documents": ["d"] * 4}) + b"\n" for i in range(1000))
    for suffix in ("", ".gz"):
        sizes = [sum(map(len, part)) for part in check([content], 8, 20, suffix)]
        assert min(sizes) > 110
        assert max(sizes) < 140


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("part.jsonl", "part-00003-of-00008.jsonl"),
        ("out/part.v1.jsonl.gz", "out/part.v1-00003-of-00008.jsonl.gz"),
        ("s3.d/part.parquet", "s3.d/part-00003-of-00008.parquet"),
        ("part", "part-00003-of-00008"),
        ("a.b/part", "a.b/part-00003-of-00008"),
    ],
)
def test_a_shards_files_have_its_number_before_the_suffix(path, named):
    assert Shard(3, 8).named(path) == named
    assert by_name(named) == Shard(3, 8)
    assert by_name(path) is None


SLURM = {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}
INDEXED = {"JOB_COMPLETION_INDEX": "3"}


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("3/8", {}),
        ("auto", SLURM),
        ("auto/8", SLURM),
        ("auto", SLURM | {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_STEP": "2"}),
        ("auto/8", INDEXED),
    ],
)
def test_the_number_of_a_shard(text, environment):
    assert parse(text, environment) == Shard(3, 8)


@pytest.mark.parametrize(
    ("text", "environment", "complaint"),
    [
        ("8/8", {}, "counted from 0 (expected 0 to 7)"),
        ("0/0", {}, "the number of shards is 0"),
        ("3", {}, "expected I/N from 0"),
        ("-1/8", {}, "expected I/N from 0"),
        ("auto", {}, "neither SLURM_ARRAY_TASK_ID (a Slurm array) nor JOB_COMPLETION_INDEX"),
        ("auto", INDEXED, "Fix: --shard auto/N with N as in `completions`"),
        ("auto/3", INDEXED, "counted from 0 (expected 0 to 2)"),
        ("auto/9", SLURM, "the array has 8 tasks (expected 9)"),
        ("auto", SLURM | {"SLURM_ARRAY_TASK_ID": "9"}, "which has gaps"),
        ("auto", SLURM | {"SLURM_ARRAY_TASK_COUNT": ""}, "SLURM_ARRAY_TASK_COUNT is no number (got '')"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is no number"),
    ],
)
def test_a_number_that_is_none_is_a_usage_error(text, environment, complaint):
    with pytest.raises(UsageError) as refused:
        parse(text, environment)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
