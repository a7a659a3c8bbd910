"""Kill `rerank run` with SIGKILL at random moments, give the same command again until it ends, compare the output.

    python tests/faults/kills.py --kills 200 --workers 2 --seed 7

A trial is one job, killed a few times: mostly while it scores, sometimes while it starts or publishes. Prints a table
and, last, one line of JSON. Exits 1 if a record was lost or doubled or anything differed, and keeps the folder then.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from kill_jobs import JOBS, make_inputs
from victims import STAGES, BrokenError, Trial, attempt, drawn, undisturbed

INTERVALS = (0, 0.3)  # seconds between commits; each job gets them in turn
COLUMNS = ("kills", *STAGES, "resumes", "lost", "doubled", "broken")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Kills are drawn from the seed; where they strike depends on the machine as well."""

    kills: int
    workers: int
    seed: int
    jobs: tuple = JOBS
    records: int = 700


@dataclass(frozen=True, slots=True)
class Report:
    """All trials."""

    plan: Plan
    trials: tuple[Trial, ...]
    seconds: float

    @property
    def broken(self):
        return [trial for trial in self.trials if trial.broken]

    @property
    def figures(self):
        """What is printed last. Kills of a trial in which nothing is wrong were survived."""
        counts = _counts(self.trials)
        survived = sum(len(trial.kills) for trial in self.trials if not trial.broken)
        about = {"trials": len(self.trials), "jobs": len(self.plan.jobs), "seed": self.plan.seed}
        first = {"kills": counts["kills"], "survived": survived, "lost": counts["lost"], "doubled": counts["doubled"]}
        return {"benchmark": "kills", **first, **counts, **about, "seconds": round(self.seconds, 1)}

    @property
    def good(self):
        """As many kills as were asked for, and nothing wrong."""
        return not self.broken and self.figures["kills"] == self.plan.kills

    def table(self):
        """Lines for people: jobs, their sum, and what was wrong."""
        rows = [(job.name, _counts(trial for trial in self.trials if trial.job == job.name)) for job in self.plan.jobs]
        lines = [" ".join([f"{'job':<18}", *(f"{name:>11}" for name in COLUMNS)])]
        for name, counts in [*rows, ("all", _counts(self.trials))]:
            lines.append(" ".join([f"{name:<18}", *(f"{counts[column]:>11}" for column in COLUMNS)]))
        for trial in self.broken:
            what = "; ".join([*trial.findings, f"{trial.lost} lost, {trial.doubled} doubled"])
            lines.append(f"\nBROKEN {trial.job}: {what}\n  folder:  {trial.folder}\n  command: {trial.command}")
        return "\n".join(lines)


def _counts(trials):
    trials = list(trials)
    stages = Counter(stage for trial in trials for stage in trial.kills)
    sums = {name: sum(getattr(trial, name) for trial in trials) for name in ("resumes", "lost", "doubled", "broken")}
    return {"kills": stages.total(), **{stage: stages[stage] for stage in STAGES}, **sums}


def campaign(plan, folder):
    """Run every job undisturbed, then trials of all jobs in turn until there were enough kills. Progress to stderr."""
    since = time.monotonic()
    given = make_inputs(folder / "inputs", plan.records)
    budget, numbers = threading.Semaphore(plan.kills), itertools.count()

    def prepared(job):
        return undisturbed(job, given[job.given], folder / "whole" / job.name.replace(" ", "-"))

    def trials(benches):
        """A worker's trials. Every trial but a few has kills, so their number is bounded."""
        while (number := next(numbers)) < 3 * plan.kills and budget.acquire(blocking=False):
            turn, which = divmod(number, len(benches))
            interval = INTERVALS[(which + turn) % len(INTERVALS)]
            moments = drawn(random.Random(f"{plan.seed} {number}"))
            trial = attempt(benches[which], interval, moments, budget, folder / f"trial-{number:03d}")
            if not trial.broken:
                shutil.rmtree(trial.folder)
            stages = ", ".join(trial.kills) or "ended before"
            print(f"{number:4d} {trial.job}: {stages}{' BROKEN' * trial.broken}", file=sys.stderr, flush=True)
            yield trial

    with ThreadPoolExecutor(plan.workers) as pool:
        benches = list(pool.map(prepared, plan.jobs))
        done = [pool.submit(lambda: list(trials(benches))) for _ in range(plan.workers)]
        found = tuple(trial for worker in done for trial in worker.result())
    return Report(plan, found, time.monotonic() - since)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--job", action="append", choices=[job.name for job in JOBS], help="only this one (repeatable)")
    return parser.parse_args()


def main():
    """Exit code 0 if all was well, 1 if not, 2 if an undisturbed run fails already."""
    given = _arguments()
    jobs = tuple(job for job in JOBS if not given.job or job.name in given.job)
    folder = Path(tempfile.mkdtemp(prefix="rerank-kills-"))
    plan = Plan(given.kills, given.workers, given.seed, jobs)
    try:
        report = campaign(plan, folder)
    except BrokenError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.table())
    print(json.dumps(report.figures))
    if report.good:
        shutil.rmtree(folder)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
