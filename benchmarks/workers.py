"""Pairs a second: CPU workers of one thread each against one process with as many threads, whole jobs side by side.

Every round runs the command itself for both, one after the other; medians are compared with loading left out and with
it. What the workers wrote must be the bytes of one process with one thread in every round. A table for people, then one
JSON line.

    python benchmarks/workers.py --scifact path/to/scifact
"""

from __future__ import annotations

import argparse
import filecmp
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch
from data import minilm, scifact_requests

import rerank_cli

Figures = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Job:
    """One input and one model, run in several ways."""

    given: Path
    model: str
    scratch: Path
    chunk_pairs: int | None

    def run(self, flags: list[str], output: str) -> tuple[float, float]:
        """Pairs a second without loading, and seconds of the whole command."""
        figures = self.scratch / "figures.json"
        command = [sys.executable, "-m", "rerank_cli", "run", str(self.given), "-m", self.model, "-q", "--overwrite"]
        command += ["-o", str(self.scratch / output), "--summary", str(figures), *flags]
        if self.chunk_pairs:
            command += ["--chunk-pairs", str(self.chunk_pairs)]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        begun = time.perf_counter()
        subprocess.run(command, check=True, env=environment)
        return orjson.loads(figures.read_bytes())["pairs_per_second"], time.perf_counter() - begun

    def same(self, output: str, other: str) -> bool:
        return filecmp.cmp(self.scratch / output, self.scratch / other, shallow=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact in BEIR layout with its BM25 run")
    parser.add_argument("--model", help="a checkpoint folder; default: the MiniLM encoder with a random head")
    parser.add_argument("--queries", type=int, default=80)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chunk-pairs", type=int, help="default: the command's own")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        given = scifact_requests(args.scifact, Path(scratch, "in.jsonl"), args.queries, args.depth)
        model = args.model or str(minilm(Path(scratch, "model")))
        job = Job(given, model, Path(scratch), args.chunk_pairs)
        report(args, *measure(job, args.workers, args.rounds))


def measure(job: Job, workers: int, rounds: int) -> tuple[Figures, Figures, bool]:
    """Pairs a second and seconds of each round by contestant, and whether threads leave the bytes as they are.

    One run of one thread comes first, which warms the disk cache and whose bytes the workers must write.
    """
    job.run(["--device", "cpu", "--threads", "1"], "reference.jsonl")
    alone, together = f"one process, {workers} threads", f"{workers} workers, 1 thread each"
    ways = {
        alone: ["--device", "cpu", "--threads", str(workers)],
        together: ["--devices", ",".join(["cpu"] * workers), "--threads", "1"],
    }
    rates: Figures = {name: [] for name in ways}
    seconds: Figures = {name: [] for name in ways}
    for _ in range(rounds):
        for name, flags in ways.items():
            rate, spent = job.run(flags, f"{name}.jsonl")
            rates[name].append(rate)
            seconds[name].append(spent)
        if not job.same(f"{together}.jsonl", "reference.jsonl"):
            raise SystemExit("the workers' output differs from that of one process with one thread")
    return rates, seconds, job.same(f"{alone}.jsonl", "reference.jsonl")


def report(args: argparse.Namespace, rates: Figures, seconds: Figures, same: bool) -> None:
    one, several = (statistics.median(found) for found in rates.values())
    one_whole, several_whole = (statistics.median(found) for found in seconds.values())
    print(f"{args.queries * args.depth} pairs, medians of {args.rounds} interleaved rounds\n")
    for name, found in rates.items():
        spread = f"{min(found):.1f} to {max(found):.1f}"
        whole = statistics.median(seconds[name])
        print(f"  {name:<28}{statistics.median(found):>8.1f} pairs/s ({spread})   whole job {whole:>6.1f} s")
    print(f"\n  ratio {several / one:.3f} with loading left out, {one_whole / several_whole:.3f} of whole jobs")
    print("  the workers wrote the bytes of one process with one thread in every round; more threads in one process ")
    print(f"  wrote {'the same bytes too' if same else 'scores that differ in their last digits'}\n")
    figures = {
        "benchmark": "workers",
        "pairs": args.queries * args.depth,
        "rounds": args.rounds,
        "workers": args.workers,
        "cpu": platform.processor() or platform.machine(),
        "pairs_per_second": rates,
        "seconds": {name: [round(value, 3) for value in found] for name, found in seconds.items()},
        "ratio": round(several / one, 4),
        "ratio_of_whole_jobs": round(one_whole / several_whole, 4),
        "same_bytes_as_one_thread": True,
        "threads_write_the_same_bytes": same,
        "versions": {"rerank": rerank_cli.__version__, "torch": torch.__version__},
    }
    print(orjson.dumps(figures).decode())


if __name__ == "__main__":
    main()
