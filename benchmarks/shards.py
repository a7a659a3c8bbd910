"""How soon the last of eight shards has its first record, and how fast shards are merged. Nothing is scored.

Each kind of input has the same records of 100 passages of 600 characters. Lines before the section where reading begins
are only counted, at `counted` megabytes a second; records from there to the shard are read, at `pairs/s` with those of
the shard itself. The merge is of eight files. A table, then one JSON line.

    python benchmarks/shards.py --records 5000
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rerank_cli.formats import InputOptions, open_source
from rerank_cli.run.shard import Shard
from rerank_cli.run.sharding.merge import MergeOptions, merge
from rerank_cli.run.sharding.part import Part

PASSAGES, CHUNK_PAIRS = 100, 8192
TEXT = "the giant panda is a bear that lives in china " * 13


def records(count: int) -> list[dict[str, object]]:
    documents = ([f"{i} {j} {TEXT}" for j in range(PASSAGES)] for i in range(count))
    return [{"id": i, "query": f"query {i}", "documents": texts} for i, texts in enumerate(documents)]


def generate(folder: Path, count: int) -> list[Path]:
    found = records(count)
    lines = b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in found)
    pairs = b"".join(
        orjson.dumps({"query_id": i, "query": f"query {i}", "docid": j, "text": f"{i} {j} {TEXT}"}) + b"\n"
        for i in range(count)
        for j in range(PASSAGES)
    )
    (folder / "requests.jsonl").write_bytes(lines)
    (folder / "requests.jsonl.gz").write_bytes(gzip.compress(lines, 4))
    (folder / "pairs.jsonl").write_bytes(pairs)
    pq.write_table(pa.Table.from_pylist(found), folder / "requests.parquet", row_group_size=500)
    return sorted(folder.iterdir())


def reading(path: Path, count: int) -> dict[str, object]:
    shard = Shard(7, 8)
    with closing(open_source(InputOptions((str(path),)))) as source:
        begun = time.perf_counter()
        near = source.go_near(shard.share_of(source.total_bytes or 0)[0])
        counted = time.perf_counter() - begun
        part = Part(shard, source.extent, lambda: CHUNK_PAIRS, near)
        records = part.of(iter(source))
        next(records)
        first = time.perf_counter() - begun
        left = 1 + sum(1 for _ in records)
        seconds = time.perf_counter() - begun - counted
    return {
        "kind": path.name,
        "before": part.before,
        "records": left,
        "counted_mb_per_second": round(path.stat().st_size * near / count / 1e6 / counted) if near else None,
        "pairs_per_second": round((count - near) * PASSAGES / seconds),
        "first_record_seconds": round(first, 3),
    }


def merging(folder: Path, data: bytes) -> float:
    """Megabytes a second, the sync to disk included."""
    parts = [folder / f"part-{index:05d}-of-00008.jsonl" for index in range(8)]
    for part in parts:
        part.write_bytes(data)
    begun = time.perf_counter()
    merge(MergeOptions([str(part) for part in parts], str(folder / "whole.jsonl"), by_name=True))
    return 8 * len(data) / 1e6 / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = [reading(path, asked.records) for path in generate(Path(name), asked.records)]
        speed = round(merging(Path(name), (Path(name) / "requests.jsonl").read_bytes()))
    for run in runs:
        counted = f", {run['counted_mb_per_second']:,} MB/s counted" if run["counted_mb_per_second"] else ""
        first = f", first record after {run['first_record_seconds']} s"
        print(f"{run['kind']:<20} {run['pairs_per_second']:>12,} pairs/s{counted}{first}")
    print(f"{'merge':<20} {speed:>12,} MB/s")
    figures = {"benchmark": "shards", "cores": os.cpu_count(), "pairs": asked.records * PASSAGES, "runs": runs}
    print(orjson.dumps(figures | {"merge_mb_per_second": speed}).decode())


if __name__ == "__main__":
    main()
