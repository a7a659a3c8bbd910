"""Shards whose outputs are in a bucket."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "run"))

from instant import config
from test_remote_runs import go, lines, whole

from rerank_cli.errors import InputError, RefusedError
from rerank_cli.run.shard import Shard
from rerank_cli.run.sharding.merge import MergeOptions, merge

NAMES = ("out.jsonl", "out.jsonl.gz", "out.parquet")


def same(found, expected):
    """Equal bytes; of Parquet, equal tables in equal row groups."""
    if not found.startswith(b"PAR1"):
        return found == expected
    ours, theirs = (pq.ParquetFile(pa.BufferReader(data)) for data in (found, expected))
    groups = [[file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] for file in (ours, theirs)]
    return groups[0] == groups[1] and ours.read().equals(theirs.read())


def shards(bucket, name, count=3):
    plan = config(bucket / "in.jsonl", bucket / name, chunk_pairs=20)
    runs = [plan.sharded(Shard(index, count)) for index in range(count)]
    return [(run, run.output.path) for run in runs]


@pytest.mark.parametrize("name", NAMES)
def test_shards_in_a_bucket_are_merged_there_to_the_bytes_of_one_run(bucket, tmp_path, name):
    expected = whole(tmp_path, lines(), f"whole{name[3:]}", chunk_pairs=20)
    bucket.put("in.jsonl", lines())
    made = shards(bucket, name)
    for run, _ in made:
        assert go(run).exit_reason == "finished"
    paths = [path for _, path in made]
    merged = merge(MergeOptions(paths, str(bucket / name)))
    assert (merged.records, merged.rejected) == (40, 0)
    assert same(bucket.get(name), expected)
    assert merge(MergeOptions(paths, str(bucket / name))).nothing_to_do
    assert go(config(bucket / "in.jsonl", bucket / name, chunk_pairs=20)).nothing_to_do
    local = tmp_path / f"merged{name[3:]}"
    merge(MergeOptions(paths, str(local)))
    assert same(local.read_bytes(), expected)


def test_a_shard_that_is_missing_is_named(bucket):
    bucket.put("in.jsonl", lines())
    (first, one), (_, two), (last, three) = shards(bucket, "out.jsonl")
    go(first)
    go(last)
    with pytest.raises(RefusedError, match=f"{two}: is missing"):
        merge(MergeOptions([one, three], str(bucket / "out.jsonl")))
    with pytest.raises(InputError, match=f"{two}: there is no such file"):
        merge(MergeOptions([one, two, three], str(bucket / "out.jsonl")))
