"""What checkpoints cost: the same job with an output that is committed and one that is not, rounds interleaved.

`off` writes to /dev/null: no file, no checkpoint, no journal. `default` writes a file as always. `every chunk` commits
chunks of 40 pairs one by one, far more often than any default. The model is loaded once. A table, then one JSON line.

Rounds of a real model differ by several per cent on a machine that is not alone. `--pace` puts a device in its place
that takes the same time for every pair, and tokenizes, plans, notes and commits as ever: what is left are the costs.

    python benchmarks/checkpoints.py --scifact path/to/scifact
    python benchmarks/checkpoints.py --scifact path/to/scifact --pace 30
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from data import minilm, scifact_requests

from rerank_cli.choices import OutputFormat, ProgressMode
from rerank_cli.engine.contract import RowNotes, Session, StopRequested, never
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.engine.session import open_session
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact in BEIR layout with its BM25 run")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pace", type=float, help="pairs a second of a device that is only waited for")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        given = scifact_requests(args.scifact, Path(scratch, "in.jsonl"), args.queries, args.depth)
        session: Session = open_session(ModelOptions(str(minilm(Path(scratch, "model"))), device="cpu", dtype="fp32"))
        if args.pace:
            session = PacedSession(session, args.pace)
        seconds, commits = measure(jobs(given, Path(scratch)), session, args.rounds)
    report(seconds, commits, args)


class PacedSession:
    """The session given, but for the scores: they are 0, after so many pairs a second."""

    def __init__(self, session: Session, pace: float) -> None:
        self.facts, self.sizes, self.work, self.prepare = session.facts, session.sizes, session.work, session.prepare
        self._pace = pace

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        begun, done = time.perf_counter(), 0
        for row in prepared.rows:
            if should_stop():
                raise StopRequested
            done += len(row.pairs)
            time.sleep(max(0.0, begun + done / self._pace - time.perf_counter()))
            if notes:
                notes.done(row.pairs, np.zeros(len(row.pairs), dtype=np.float32))
        return np.zeros(len(prepared.distinct), dtype=np.float32)


def jobs(given: Path, scratch: Path) -> dict[str, RunConfig]:
    default = RunConfig(
        ModelOptions("minilm"),
        InputOptions((str(given),)),
        OutputOptions(str(scratch / "out.jsonl"), OutputFormat.API, AnswerOptions("minilm"), overwrite=True),
        progress=ProgressMode.OFF,
    )
    nowhere = replace(default, output=replace(default.output, path="/dev/null"))
    small = {"chunk_pairs": 40, "commit_interval": 0.0}
    return {
        "off": nowhere,
        "default": default,
        "off, chunks of 40": replace(nowhere, **small),
        "every chunk of 40": replace(default, **small),
    }


def measure(
    plans: dict[str, RunConfig], session: Session, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each round, and those of them that went into commits; one round before does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    commits: dict[str, list[float]] = {name: [] for name in plans}
    for number in range(rounds + 1):
        for name, plan in plans.items():
            begun = time.perf_counter()
            summary, _ = run(plan, lambda _: session)
            spent = time.perf_counter() - begun
            if not summary.stats.finished:
                raise SystemExit("interrupted")
            if number:
                seconds[name].append(spent)
                commits[name].append(summary.stats.seconds.get("commit", 0.0))
    return seconds, commits


def report(seconds: dict[str, list[float]], commits: dict[str, list[float]], args: argparse.Namespace) -> None:
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    shares = {name: statistics.median(commits[name]) / medians[name] for name in medians}
    print(f"{args.queries * args.depth} pairs, medians of {args.rounds} interleaved rounds\n")
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f} s"
        print(f"  {name:<20}{median:>7.2f} s ({spread}), {shares[name]:.3%} of it in commits")
    costs = {
        "default": medians["default"] / medians["off"] - 1,
        "every chunk of 40": medians["every chunk of 40"] / medians["off, chunks of 40"] - 1,
    }
    print("\n  " + ", ".join(f"{name}: {cost:+.2%}" for name, cost in costs.items()) + "\n")
    rounded = {name: [round(value, 4) for value in found] for name, found in seconds.items()}
    print(
        orjson.dumps(
            {"benchmark": "checkpoints", "pace": args.pace, "seconds": rounded, "commit_shares": shares, "costs": costs}
        ).decode()
    )


if __name__ == "__main__":
    main()
