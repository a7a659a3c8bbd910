"""Pairs a second that one driver feeds: reading, ranking, writing and journal are real, workers score at no cost.

Compares no workers, worker processes and Ray actors on this machine. The driver's CPU seconds a million pairs tell how
many cards one driver feeds where it has cores of its own; here the workers take their part of the same cores. A table,
then one JSON line.

    python benchmarks/ray_driver.py --pairs 400000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from memory import InstantSession, generate

from rerank_cli.choices import OutputFormat, ProgressMode
from rerank_cli.cli.terminal.streams import prepare
from rerank_cli.engine.contract import Sizes
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.workers.ray_cluster import RayCluster
from rerank_cli.run.scoring.workers.ray_transport import Needs, RayTransport
from rerank_cli.run.scoring.workers.transport import Place

CARD = (4_000, 10_000)  # pairs a second of an H100 with bge-reranker-v2-m3, assumed: 0.1 TFLOP a pair of 170 tokens


class InstantWorker(InstantSession):
    """Tells its rows, as a model does: one for each slice."""

    sizes = Sizes(batch_tokens=2048, chunk_pairs=8192)

    def resized(self, _: int) -> InstantWorker:
        return self

    def score(self, prepared: Prepared, _: Any = None, notes: Any = None) -> Any:
        scores = super().score(prepared)
        notes.done(np.arange(len(scores)), scores)
        return scores


class Timed(Workers):
    """Notes when the run has ended, before the workers are."""

    over: tuple[float, float] | None = None

    def close(self) -> None:
        self.over = self.over or now()
        super().close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400_000)
    parser.add_argument("--documents", type=int, default=100, help="of each query")
    parser.add_argument("--characters", type=int, default=600, help="of each document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk-pairs", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--child", nargs=4, metavar=("WAY", "INPUT", "OUTPUT", "CHUNK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch, "in.jsonl")
        generate(given, args.pairs * (args.characters + 4) / 1e6, args.documents, args.characters)
        rows = measured(args, given, Path(scratch, "out.jsonl"))
    print(f"{rows[0]['pairs']:,} pairs of {args.characters} characters, {args.documents} a query\n")
    print(f"{'workers':<14}{'slice':>7}{'pairs/s':>12}{'CPU s a million pairs':>24}{'cards a driver core feeds':>28}")
    for row in rows:
        low, high = (1e6 / row["driver_cpu_per_million"] / rate for rate in reversed(CARD))
        print(f"{row['way']:<14}{row['chunk_pairs']:>7}{row['pairs_per_second']:>12,.0f}", end="")
        print(f"{row['driver_cpu_per_million']:>24.2f}{f'{low:.0f} to {high:.0f}':>28}")
    print()
    figures = {"benchmark": "ray_driver", "cpu": platform.processor() or platform.machine(), "card": CARD, "rows": rows}
    print(orjson.dumps(figures).decode())


def measured(args: argparse.Namespace, given: Path, written: Path) -> list[dict[str, Any]]:
    """The best of the rounds of each way, interleaved; all outputs must be the same."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    bytes_of: dict[str, str] = {}
    for _ in range(args.rounds):
        for chunk in args.chunk_pairs:
            for way in ("none", "processes 1", "ray 1", "ray 2", "ray 4"):
                command = [sys.executable, __file__, "--child", way, str(given), str(written), str(chunk)]
                environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
                ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
                found = orjson.loads(ended.stdout) | {"way": way, "chunk_pairs": chunk}
                with written.open("rb") as file:
                    bytes_of[way] = hashlib.file_digest(file, "sha256").hexdigest()
                if len(set(bytes_of.values())) > 1:
                    raise SystemExit(f"the output of {way} differs")
                before = best.get((way, chunk))
                if before is None or found["pairs_per_second"] > before["pairs_per_second"]:
                    best[way, chunk] = found
    return list(best.values())


def child(way: str, given: str, written: str, chunk: str) -> None:
    """One run in this process; prints its figures."""
    prepare(quiet=True)
    kind, _, count = way.partition(" ")

    models: list[Any] = []
    begun: list[tuple[float, float]] = []

    def opened(_: ModelOptions) -> Any:
        if kind == "none":
            models.append(InstantSession())
        else:
            places = [Place("cpu", InstantWorker)] * int(count)
            models.append(Timed(places, RayTransport(RayCluster("local"), Needs(0)) if kind == "ray" else None))
        begun.append(now())
        return models[0]

    output = OutputOptions(written, OutputFormat.API, AnswerOptions("instant"), overwrite=True)
    options = {"progress": ProgressMode.OFF, "chunk_pairs": int(chunk)}
    config = RunConfig(ModelOptions("instant"), InputOptions((given,)), output, **options)
    pairs = run(config, opened)[0].stats.pairs
    seconds, cpu = (end - start for end, start in zip(getattr(models[0], "over", None) or now(), begun[0], strict=True))
    figures = {
        "pairs": pairs,
        "pairs_per_second": round(pairs / seconds),
        "driver_cpu_per_million": round(cpu / pairs * 1e6, 3),
    }
    print(orjson.dumps(figures).decode())


def now() -> tuple[float, float]:
    """Seconds of the clock, and CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
