"""How soon a run that was killed at nine tenths of a large input scores again, and in how much memory.

Everything but model and tokenizer is real. Each kind of input is run by a process that dies at 90 % and gone on with by
another; `open to score` is the time from the model's being there to its first pair, `start to score` all of it but the
imports. `touched` has another time of change, so that all of it is read again. A table, then one JSON line.

    python benchmarks/resume.py --megabytes 1000
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from memory import InstantSession, generate

from rerank_cli.choices import OutputFormat, ProgressMode
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig

KINDS = ("requests.jsonl", "touched.jsonl", "requests.jsonl.gz", "pairs.jsonl", "pairs.parquet")


class MortalSession(InstantSession):
    """Kills its process once so many pairs are scored; notes when it scored first."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.opened = time.perf_counter()
        self.first: float | None = None
        self._left = dies_after

    def score(self, prepared: Prepared, *_: object) -> npt.NDArray[np.float32]:
        self.first = self.first or time.perf_counter()
        if self._left is not None:
            self._left -= len(prepared.distinct)
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().score(prepared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--child", nargs=3, metavar=("INPUT", "OUTPUT", "DIES_AFTER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        requests = Path(scratch, "requests.jsonl")
        generate(requests, args.megabytes, documents=10, characters=600)
        for kind in args.kinds:
            rows.append(measure(kind, requests, Path(scratch)))
            row = rows[-1]
            print(f"{kind:<18}{row['done_before']:>7.1%} done{row['open_to_score']:>8.2f} s open to score", end="")
            print(f"{row['start_to_score']:>8.2f} s start to score{row['peak_mb']:>6.0f} MB peak", flush=True)
    print()
    print(orjson.dumps({"benchmark": "resume", "megabytes": args.megabytes, "runs": rows}).decode())


def measure(kind: str, requests: Path, scratch: Path) -> dict[str, float | str]:
    """Run to nine tenths, die, go on; what the second process tells."""
    given, written = convert(kind, requests, scratch), scratch / "out.jsonl"
    pairs = 10 * sum(1 for _ in requests.open("rb"))
    begin = [sys.executable, __file__, "--child", str(given), str(written)]
    died = subprocess.run([*begin, str(pairs * 9 // 10)], check=False)
    assert died.returncode == -signal.SIGKILL
    if kind == "touched.jsonl":
        os.utime(given)
    found = orjson.loads(subprocess.run([*begin, "0"], check=True, capture_output=True).stdout)
    assert found.pop("pairs") == pairs
    written.unlink()
    if given != requests:
        given.unlink()
    return {"kind": kind, **found}


def convert(kind: str, requests: Path, scratch: Path) -> Path:
    """The same requests in another kind of file."""
    if kind in ("requests.jsonl", "touched.jsonl"):
        return requests
    target = scratch / kind
    if kind == "requests.jsonl.gz":
        with requests.open("rb") as source, gzip.open(target, "wb", compresslevel=1) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    elif kind == "pairs.jsonl":
        with target.open("wb") as file:
            for row in pair_rows(requests):
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    elif kind == "pairs.parquet":
        write_table(requests, target)
    return target


def pair_rows(requests: Path):  # noqa: ANN201 - a generator of objects
    with requests.open("rb") as file:
        for line in file:
            record = orjson.loads(line)
            for number, text in enumerate(record["documents"]):
                yield {"query_id": record["id"], "query": record["query"], "docid": number, "text": text}


def write_table(requests: Path, target: Path) -> None:
    rows, writer = [], None
    for row in pair_rows(requests):
        rows.append(row)
        if len(rows) == 100_000:
            writer = append(writer, rows, target)
            rows = []
    writer = append(writer, rows, target)
    writer.close()


def append(writer: pq.ParquetWriter | None, rows: list[dict[str, object]], target: Path) -> pq.ParquetWriter:
    table = pa.Table.from_pylist(rows)
    writer = writer or pq.ParquetWriter(target, table.schema)
    writer.write_table(table)
    return writer


def child(given: str, written: str, dies_after: str) -> None:
    begun = time.perf_counter()
    format = OutputFormat.PAIRS if "pairs" in given else OutputFormat.API
    config = RunConfig(
        ModelOptions("instant"),
        InputOptions((given,)),
        OutputOptions(written, format, AnswerOptions("instant")),
        progress=ProgressMode.OFF,
    )
    sessions: list[MortalSession] = []

    def open_model(_: ModelOptions) -> MortalSession:
        sessions.append(MortalSession(int(dies_after) or None))
        return sessions[-1]

    summary, _ = run(config, open_model)
    (session,) = sessions
    assert session.first is not None
    found = {
        "pairs": summary.stats.pairs,
        "done_before": summary.stats.resumed_records / summary.stats.records,
        "open_to_score": round(session.first - session.opened, 3),
        "start_to_score": round(session.first - begun, 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }
    print(orjson.dumps(found).decode())


if __name__ == "__main__":
    main()
