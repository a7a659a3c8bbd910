"""Whole runs of shards, merged: the bytes of one run, for every kind of input and output."""

import gzip
import os
import random
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instant import InstantSession, config, go, kill, names

from rerank_cli.choices import OnError, OutputFormat
from rerank_cli.errors import InputError, RefusedError, UsageError
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.formats import ById, InputOptions, extent
from rerank_cli.inspection.status import status_of
from rerank_cli.run.checks import check
from rerank_cli.run.job import run
from rerank_cli.run.recovery.shard_note import note_of
from rerank_cli.run.shard import Shard
from rerank_cli.run.sharding.merge import MergeOptions, merge

RNG = random.Random(5)
REQUESTS = [
    {"query": f"query {i}", "documents": [f"document {i} {j}" for j in range(RNG.randint(0, 6))]}
    | ({"id": f"own {i}"} if i % 3 else {})
    for i in range(60)
]
PAIRS = [
    {"query_id": i, "query": r["query"], "docid": f"d{j}", "text": text}
    for i, r in enumerate(REQUESTS)
    for j, text in enumerate(r["documents"])
]
SHUFFLED = RNG.sample(PAIRS, len(PAIRS))
AS_PAIRS = {"format": OutputFormat.PAIRS}


def lines(rows):
    return b"".join(row if isinstance(row, bytes) else orjson.dumps(row) + b"\n" for row in rows)


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)


def as_arrow(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=9)


@pytest.fixture(autouse=True, scope="module")
def _small_sections():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extent, "SECTION_BYTES", 500)
        patch.setattr(extent, "SECTION_ROWS", 5)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    bad = [b"broken\n" if i % 7 == 3 else record for i, record in enumerate(REQUESTS)]
    for name, content in {
        "requests.jsonl": lines(REQUESTS),
        "requests.jsonl.gz": gzip.compress(lines(REQUESTS)),
        "requests.json": orjson.dumps(REQUESTS),
        "spread.json": b"\n".join(orjson.dumps(record, option=orjson.OPT_INDENT_2) for record in REQUESTS),
        "bad.jsonl": lines(bad),
        "pairs.jsonl": lines(PAIRS),
        "returning.jsonl": lines([*PAIRS, *PAIRS[:5]]),
        "shuffled.jsonl": lines(SHUFFLED),
        "pairs.csv": "\n".join(
            ["query_id,query,docid,text", *(",".join(map(str, r.values())) for r in PAIRS)]
        ).encode(),
        "pairs.tsv": "\n".join(
            "\t".join(map(str, row.values())) for row in [dict(zip(PAIRS[0], PAIRS[0], strict=True)), *PAIRS]
        ).encode(),
        "queries.jsonl": lines({"_id": str(i), "text": r["query"]} for i, r in enumerate(REQUESTS)),
        "corpus.jsonl": lines({"_id": f"{r['query_id']}-{r['docid']}", "text": r["text"]} for r in PAIRS),
        "run.trec": "".join(
            f"{r['query_id']} Q0 {r['query_id']}-{r['docid']} 1 {9 - int(r['docid'][1])} t\n" for r in PAIRS
        ).encode(),
        "run.json": orjson.dumps(
            {str(i): {f"{i}-d{j}": 9 - j for j in range(len(r["documents"]))} for i, r in enumerate(REQUESTS)}
        ),
        "qrels": "".join(f"{i} 0 d0 1\n" for i in range(60)).encode(),
    }.items():
        (folder / name).write_bytes(content)
    as_parquet(folder / "requests.parquet", [r | {"id": r.get("id", f"p{i}")} for i, r in enumerate(REQUESTS)])
    as_parquet(folder / "pairs.parquet", PAIRS)
    as_arrow(folder / "pairs.arrow", PAIRS)
    return folder


def plan(inputs, given, written, shard=None, **more):
    """`given` is a name, several with + between; *.trec and *.json runs by id are named run.*"""
    paths = tuple(str(inputs / name) for name in given.split("+"))
    found = config(inputs / "none", written, chunk_pairs=8, **more)
    ids = ById(str(inputs / "queries.jsonl"), str(inputs / "corpus.jsonl"), answer_unlisted=True)
    by_id = ids if given.startswith("run.") else None
    found = replace(found, input=InputOptions(paths, by_id=by_id, sort=given.startswith("shuffled")))
    return found.sharded(shard) if shard else found


def content(path):
    """The bytes; of Parquet the rows, columns and row groups."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    return file.read().to_pylist(), groups, file.schema_arrow.remove_metadata(), file.schema_arrow.metadata


def run_all(inputs, given, written, count=8, **more):
    """The outputs of all shards, whose receipts are signed as a command signs them."""
    found = []
    for index in random.Random(1).sample(range(count), count):
        shard = plan(inputs, given, written, Shard(index, count), **more)
        go_signed(shard)
        found.append(shard.output.path)
    return found


def go_signed(config):
    return run(config, lambda _: InstantSession(), lambda _: "r1")[0]


@pytest.mark.parametrize(
    ("given", "output", "more"),
    [
        ("requests.jsonl", "out.jsonl", {}),
        ("requests.jsonl", "out.jsonl.gz", {}),
        ("requests.jsonl", "out.json", {}),
        ("requests.jsonl", "out.json.zst", {}),
        ("requests.jsonl", "out.json", {"format": OutputFormat.BEIR}),
        ("requests.jsonl", "out.json.bz2", {"format": OutputFormat.FLAGEMBEDDING}),
        ("requests.jsonl", "out.parquet", {}),
        ("requests.jsonl+requests.jsonl.gz+spread.json", "out.jsonl", {}),
        ("requests.jsonl.gz", "out.jsonl", {}),
        ("requests.json", "out.jsonl", {}),
        ("spread.json", "out.jsonl", {}),
        ("bad.jsonl", "out.jsonl", {"on_error": OnError.SKIP}),
        ("bad.jsonl", "out.jsonl", {"on_error": OnError.EMIT}),
        ("requests.parquet", "out.parquet", {}),
        ("pairs.jsonl", "out.jsonl", AS_PAIRS),
        ("pairs.jsonl", "out.csv", AS_PAIRS),
        ("pairs.csv", "out.csv.lz4", AS_PAIRS),
        ("pairs.tsv", "out.tsv.xz", AS_PAIRS),
        ("pairs.parquet", "out.parquet", AS_PAIRS),
        ("pairs.arrow", "out.trec", {"format": OutputFormat.TREC}),
        ("returning.jsonl", "out.jsonl", {"on_error": OnError.SKIP}),
        ("shuffled.jsonl", "out.jsonl", {}),
        ("run.trec", "out.trec", {"format": OutputFormat.TREC}),
        ("run.trec", "out.tsv", {"format": OutputFormat.MSMARCO}),
        ("run.json", "out.jsonl", {}),
    ],
)
def test_eight_shards_merged_are_one_run(inputs, tmp_path, given, output, more):
    whole = plan(inputs, given, tmp_path / f"whole-{output}", **more)
    rejected = go_signed(whole).stats.rejected
    parts = run_all(inputs, given, tmp_path / output, **more)
    assert sum(note_of(str(part)).records > 0 for part in parts) > 4
    merged = merge(MergeOptions(parts, str(tmp_path / output)))
    assert (merged.shards, merged.rejected) == (8, rejected)
    assert content(tmp_path / output) == content(tmp_path / f"whole-{output}")
    assert go_signed(plan(inputs, given, tmp_path / output, **more)).nothing_to_do
    assert not {name for name in names(tmp_path) if name.endswith(("partial", "lock", "checkpoint", "queries"))}


@pytest.mark.parametrize(
    ("output", "more"),
    [
        ("out.jsonl", {}),
        ("out.jsonl.gz", {}),
        ("out.json.gz", {}),
        ("out.csv", AS_PAIRS),
        ("out.csv.gz", AS_PAIRS),
        ("out.parquet", {}),
    ],
)
@pytest.mark.parametrize("records", [0, 1])
def test_more_shards_than_records_merge_too(tmp_path, output, more, records):
    (tmp_path / "in.jsonl").write_bytes(lines(PAIRS[:records]))
    go_signed(plan(tmp_path, "in.jsonl", tmp_path / f"whole-{output}", **more))
    parts = run_all(tmp_path, "in.jsonl", tmp_path / output, count=3, **more)
    merge(MergeOptions(parts, str(tmp_path / output)))
    assert content(tmp_path / output) == content(tmp_path / f"whole-{output}")


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ("requests.jsonl", {}), ("requests.jsonl.gz", {}), ("requests.json", {}), ("requests.parquet", {}),
        ("pairs.jsonl", {}), ("pairs.csv", {}), ("shuffled.jsonl", {}), ("run.trec", {}), ("run.json", {}),
        ("bad.jsonl", {"on_error": OnError.SKIP}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("touched", [False, True])
def test_a_killed_shard_goes_on_to_the_same_bytes(inputs, tmp_path, given, more, touched):
    """`touched`: the input has another time of change, so that what was done is read again and compared."""
    expected = plan(inputs, given, tmp_path / "whole.jsonl", Shard(2, 4), **more)
    go(expected)
    shard = plan(inputs, given, tmp_path / "out.jsonl", Shard(2, 4), **more)
    kill(shard, at=3)
    if touched:
        os.utime(inputs / given)
    summary, _ = go(shard)
    assert summary.stats.resumed_records > 0
    assert Path(shard.output.path).read_bytes() == Path(expected.output.path).read_bytes()


def test_ids_lines_and_quarantine_are_those_of_the_whole_file(inputs, tmp_path):
    skip = {"on_error": OnError.SKIP}
    go_signed(plan(inputs, "bad.jsonl", tmp_path / "whole.jsonl", errors=str(tmp_path / "bad.whole.jsonl"), **skip))
    errors = str(tmp_path / "bad.jsonl")
    parts = run_all(inputs, "bad.jsonl", tmp_path / "out.jsonl", errors=errors, **skip)
    said = []
    assert merge(MergeOptions(parts, str(tmp_path / "plain.jsonl"), notify=said.append)).rejected == 9
    assert "9 rejected records are listed in" in said[0]
    assert "bad-00000-of-00008.jsonl" in said[0]
    merge(MergeOptions(parts, str(tmp_path / "out.jsonl"), errors=errors))
    assert (tmp_path / "bad.jsonl").read_bytes() == (tmp_path / "bad.whole.jsonl").read_bytes()
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    again = plan(inputs, "bad.jsonl", tmp_path / "out.jsonl", errors=errors, **skip)
    assert go_signed(again).nothing_to_do
    with pytest.raises(RefusedError, match="exists already"):  # its quarantine file was not merged
        go_signed(replace(again, output=replace(again.output, path=str(tmp_path / "plain.jsonl"))))


def test_all_files_of_a_shard_have_its_number(inputs, tmp_path):
    beside = {
        name: str(tmp_path / f"{name}.{end}")
        for name, end in (("errors", "jsonl"), ("summary", "json"), ("checkpoint", "kept"))
    }
    shard = plan(inputs, "requests.jsonl", tmp_path / "out.jsonl", Shard(2, 4), on_error=OnError.SKIP, **beside)
    kill(shard, at=2)
    number = "-00002-of-00004"
    kept = names(tmp_path)
    assert {f"checkpoint{number}.kept", f"errors{number}.jsonl", f"out{number}.jsonl.partial"} <= set(kept)
    assert all(number in name for name in kept)
    assert status_of(shard.output.path, shard.checkpoint).state == "stopped"
    go(shard)
    assert names(tmp_path) == [f"errors{number}.jsonl", f"out{number}.jsonl", f"summary{number}.json"]
    assert status_of(shard.output.path).finished["records"] == note_of(shard.output.path).records


def test_a_shard_is_measured_by_the_judged_queries_in_it(inputs, tmp_path):
    qrels = {"qrels": QrelsOptions(str(inputs / "qrels"), "RR")}
    whole = go(plan(inputs, "pairs.jsonl", tmp_path / "whole.jsonl", **qrels))[0].evaluation
    shards = [
        go(plan(inputs, "pairs.jsonl", tmp_path / "out.jsonl", Shard(i, 3), **qrels))[0].evaluation for i in range(3)
    ]
    assert [found.missing for found in shards] == [0, 0, 0]
    total = sum(found.queries * found.after.means["RR"] for found in shards)
    assert total / whole.queries == pytest.approx(whole.after.means["RR"])
    assert sum(found.queries for found in shards) == whole.queries - whole.missing


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"limit": 5}, "Fix: leave --limit out"),
        ({"path": "-"}, "Fix: -o with a regular file"),
        ({"input": "-"}, "stdin can be read only once"),
        ({"input": "/dev/stdin"}, "/dev/stdin can be read only once"),
    ],
)
def test_what_cannot_be_divided_is_refused(inputs, tmp_path, change, complaint):
    found = plan(inputs, "requests.jsonl", change.pop("path", tmp_path / "out.jsonl"), limit=change.pop("limit", None))
    if change:
        found = replace(found, input=InputOptions((change["input"],)))
    with pytest.raises(UsageError) as refused:
        check(found.sharded(Shard(1, 2)))
    assert complaint in str(refused.value)


@pytest.fixture(scope="module")
def three(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    run_all(inputs, "requests.jsonl", folder / "out.jsonl", count=3)
    run_all(inputs, "requests.jsonl", folder / "top.jsonl", count=3, top_n=1)
    run_all(inputs, "requests.jsonl", folder / "two.jsonl", count=2)
    (folder / "in.jsonl").write_bytes(lines(REQUESTS[1:]))
    run_all(folder, "in.jsonl", folder / "other.jsonl", count=3)
    go_signed(plan(inputs, "requests.jsonl", folder / "whole.jsonl"))
    killed = plan(inputs, "requests.jsonl", folder / "killed.jsonl", Shard(1, 3))
    kill(killed, at=2)
    go_signed(plan(inputs, "requests.jsonl", folder / "killed.jsonl", Shard(0, 3)))
    (folder / "copied-00001-of-00003.jsonl").write_bytes((folder / "out-00001-of-00003.jsonl").read_bytes())
    (folder / "notes.jsonl").write_bytes(b"{}\n")
    return folder


def numbered(name, *indexes, count=3):
    return [f"{name}-{index:05d}-of-{count:05d}.jsonl" for index in indexes]


@pytest.mark.parametrize(
    ("shards", "error", "complaint"),
    [
        (numbered("out", 0, 2), RefusedError, "out-00001-of-00003.jsonl: was not named"),
        (numbered("killed", 0), RefusedError, "killed-00001-of-00003.jsonl: is not finished"),
        (numbered("killed", 0, 1), RefusedError, "killed-00001-of-00003.jsonl: is not finished"),
        (numbered("out", 0, 1, 2, 1), RefusedError, "out-00001-of-00003.jsonl: is shard 1/3, and so is"),
        (
            numbered("out", 0, 1) + numbered("two", 1, count=2),
            RefusedError,
            "two-00001-of-00002.jsonl: belongs to another number",
        ),
        (
            numbered("out", 0, 1) + numbered("top", 2),
            RefusedError,
            "top-00002-of-00003.jsonl: made with other settings",
        ),
        (numbered("out", 0, 1) + numbered("top", 2), RefusedError, "(top n None → 1)"),
        (
            numbered("out", 0, 1) + numbered("other", 2),
            RefusedError,
            "other-00002-of-00003.jsonl: made from another input",
        ),
        (numbered("out", 0, 2) + numbered("copied", 1), RefusedError, "copied-00001-of-00003.jsonl: has no receipt"),
        (["whole.jsonl"], RefusedError, "whole.jsonl: is a whole output"),
        (["notes.jsonl"], RefusedError, "notes.jsonl: is not a shard"),
        (["nowhere.jsonl"], InputError, "nowhere.jsonl: there is no such file"),
    ],
)
def test_shards_that_do_not_fit_are_refused_by_name(three, tmp_path, shards, error, complaint):
    with pytest.raises(error) as refused:
        merge(MergeOptions([str(three / name) for name in shards], str(tmp_path / "merged.jsonl")))
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert names(tmp_path) == []


def test_other_chunks_would_overlap_and_are_refused(inputs, tmp_path):
    parts = run_all(inputs, "requests.jsonl", tmp_path / "out.jsonl", count=2)
    go_signed(replace(plan(inputs, "requests.jsonl", tmp_path / "o.jsonl", Shard(1, 2)), chunk_pairs=30))
    others = [str(tmp_path / "o-00001-of-00002.jsonl"), next(part for part in parts if "00000" in part)]
    with pytest.raises(RefusedError, match=r"chunk pairs 8 → 30"):
        merge(MergeOptions(others, str(tmp_path / "m.jsonl")))


def test_names_are_trusted_when_they_are_to_be(three, tmp_path):
    for path in three.glob("out-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    parts = sorted(map(str, tmp_path.iterdir()), reverse=True)
    merged = merge(MergeOptions(parts, str(tmp_path / "merged.jsonl"), by_name=True))
    assert (merged.shards, merged.records) == (3, None)
    assert (tmp_path / "merged.jsonl").read_bytes() == (three / "whole.jsonl").read_bytes()


def test_merging_again_does_nothing_and_another_output_is_not_overwritten(three, tmp_path):
    parts = [str(three / name) for name in numbered("out", 2, 0, 1)]
    options = MergeOptions(parts, str(tmp_path / "merged.jsonl"))
    assert not merge(options).nothing_to_do
    assert merge(options).nothing_to_do
    assert not merge(replace(options, overwrite=True)).nothing_to_do
    (tmp_path / "dear.jsonl").write_bytes(b"dear")
    with pytest.raises(RefusedError, match="exists already"):
        merge(replace(options, output=str(tmp_path / "dear.jsonl")))
    with pytest.raises(UsageError, match="another suffix"):
        merge(replace(options, output=str(tmp_path / "merged.jsonl.gz")))


def test_a_cut_shard_is_refused(three, tmp_path):
    """A receipt holds for a file of that size."""
    import shutil

    for path in three.glob("out-*"):
        shutil.copy2(path, tmp_path)
    with (tmp_path / "out-00001-of-00003.jsonl").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(RefusedError, match=r"out-00001-of-00003\.jsonl: has no receipt"):
        merge(MergeOptions(sorted(map(str, tmp_path.iterdir())), str(tmp_path / "merged.jsonl")))
