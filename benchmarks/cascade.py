"""What a cascade is worth: pairs a second, how many of the large model's best ten it keeps, and nDCG@10, on SciFact.

The large model is `mini` over whole passages; the small one has the same weights and reads their first tokens only, so
that both have learnt what they do. Rounds are interleaved, and the agreement that a run measures on a sample is set
beside that over all its requests. A table, then one JSON line.

    python benchmarks/cascade.py --scifact path/to/scifact
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
from quality import Task, answers, mean, scifact

from rerank_cli.choices import OutputFormat, ProgressMode, ScoreKind
from rerank_cli.engine.contract import Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.run.job import run
from rerank_cli.run.options import Cascade, RunConfig
from rerank_cli.run.summary import Summary

ALONE, TOP = 0, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact in BEIR layout with its BM25 run")
    parser.add_argument("--claims", type=int, default=30)
    parser.add_argument("--keep", type=int, nargs="*", default=[10, 20, 50])
    parser.add_argument("--tokens", type=int, default=128, help="of a pair, that the small model reads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    args = parser.parse_args()
    task = scifact(args.scifact, args.claims)
    with tempfile.TemporaryDirectory() as scratch:
        trials = Trials(args, Path(scratch), task)
        for number in range(args.rounds + 1):
            trials.round(counts=number > 0)
        report(args, task, trials)


class Trials:
    """Runs over the same requests, by the number of candidates that are kept; 0 is the large model alone."""

    def __init__(self, args: argparse.Namespace, scratch: Path, task: Task) -> None:
        self._scratch = scratch
        given = scratch / "in.jsonl"
        given.write_bytes(b"".join(orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in task.requests))
        large = ModelOptions("mini", device=args.device, dtype=args.dtype)
        self._small = replace(large, name="its beginnings", max_length=args.tokens, query_max_length=args.tokens // 2)
        self._sessions: dict[str, Session] = {
            large.name: open_session(large),
            self._small.name: open_session(replace(self._small, name=large.name)),
        }
        self._plan = RunConfig(
            large,
            InputOptions((str(given),)),
            OutputOptions("", OutputFormat.API, AnswerOptions("mini", ScoreKind.RAW, False), overwrite=True),
            progress=ProgressMode.OFF,
        )
        self.seconds: dict[int, list[float]] = {keep: [] for keep in (ALONE, *args.keep)}
        self.last: dict[int, Summary] = {}

    def round(self, *, counts: bool) -> None:
        """Each once; the round that does not count looks into some requests, the others into none."""
        for keep, seconds in self.seconds.items():
            cascade = Cascade(self._small, keep, 0 if counts else None) if keep else None
            output = replace(self._plan.output, path=str(self._output(keep)))
            plan = replace(self._plan, output=output, cascade=cascade)
            summary, _ = run(plan, lambda options: self._sessions[options.name])
            if not summary.stats.finished or summary.stats.scoring_since is None:
                raise SystemExit("interrupted")
            if counts:
                seconds.append(time.monotonic() - summary.stats.scoring_since)
            else:
                self.last[keep] = summary

    def scores(self, keep: int) -> dict[str, dict[str, float]]:
        return dict(answers(self._output(keep)))

    def _output(self, keep: int) -> Path:
        return self._scratch / f"out-{keep}.jsonl"


def report(args: argparse.Namespace, task: Task, trials: Trials) -> None:
    alone = trials.scores(ALONE)
    base = statistics.median(trials.seconds[ALONE])
    pairs = sum(len(request["documents"]) for request in task.requests)
    print(f"{len(task.requests)} claims, {pairs} pairs, medians of {args.rounds} interleaved rounds\n")
    print(f"{'kept':>6}{'pairs/s':>9}{'faster':>8}{'top 10 kept':>13}{'same best':>11}{'nDCG@10':>9}  on its sample")
    rows: list[dict[str, Any]] = []
    for keep, seconds in trials.seconds.items():
        median, found = statistics.median(seconds), trials.scores(keep)
        row = {"keep": keep, "pairs_per_second": pairs / median, "faster": base / median, "ndcg": mean(task, found)}
        row |= agreement(alone, found, min(TOP, keep or TOP))
        use = trials.last[keep].cascade
        row["sample"] = asdict(use) if use else None
        said = f"{use.kept_of_top_k:.1%}, {use.same_best:.1%} of {use.sampled} claims" if use else "large alone"
        speed = f"{row['pairs_per_second']:>9,.0f}{row['faster']:>7.2f}x"
        shares = f"{row['kept_of_top_k']:>13.1%}{row['same_best']:>11.1%}{row['ndcg']:>9.4f}"
        print(f"{keep or 'all':>6}{speed}{shares}  {said}")
        rows.append(row)
    print()
    print(orjson.dumps({"benchmark": "cascade", "pairs": pairs, "tokens": args.tokens, "trials": rows}).decode())


def agreement(alone: dict[str, dict[str, float]], ours: dict[str, dict[str, float]], k: int) -> dict[str, float]:
    """The same figures as a run's own, over all requests, from the answers."""
    shares, firsts = [], []
    for key, scores in alone.items():
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:k]
        shares.append(len(set(best) & set(ours[key])) / k)
        firsts.append(best[0] in ours[key])
    return {"kept_of_top_k": statistics.mean(shares), "same_best": statistics.mean(firsts)}


if __name__ == "__main__":
    main()
