"""Processes of `rerank run` that are killed: started, struck at a moment, looked at, and started again.

What a process is at is told by what it says on stderr and by its checkpoint, so that moments fall where they are meant
to on a machine of any speed.
"""

import os
import random
import shlex
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evidence import Place, after_a_kill, after_the_end, lost_and_doubled
from kill_jobs import Inputs, Job
from processes import RERANK, TINY, Forked, environment

from rerank_cli.errors import RefusedError

PATIENCE = 180  # seconds for one process; a busy machine is no failure
# Imports and model load; scoring before a first commit; scoring after one; after the last one.
STAGES = ("starting", "uncommitted", "middle", "publishing")
_AT_WORK, _GOES_ON = b", packed rows of ", "resuming after "


class BrokenError(Exception):
    """An undisturbed run did not do what it must: there is nothing to compare with."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A job with its inputs, the output of an undisturbed run, and the seconds that run took by phase."""

    job: Job
    inputs: Inputs
    whole: Place
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: at this share of the usual time to start, of all the scoring, or of the publishing."""

    phase: str
    share: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one job: the stage of each kill, how often it went on, and what is wrong."""

    job: str
    kills: tuple[str, ...]
    resumes: int
    lost: int
    doubled: int
    findings: tuple[str, ...]
    command: str
    folder: Path

    @property
    def broken(self):
        return bool(self.lost or self.doubled or self.findings)


class Running:
    """One process of a job: one of its own if its start matters, `afresh`, else by the fork server."""

    def __init__(self, command, job, inputs, place, log, *, afresh):
        self._place, self._log, self._records = place, log, inputs.records
        with open(inputs.paths[0] if job.piped else os.devnull, "rb") as stdin, open(log, "wb") as stderr:
            settings = {"stdin": stdin, "stdout": subprocess.DEVNULL, "stderr": stderr, "env": environment()}
            self._process = subprocess.Popen(command, **settings) if afresh else Forked(command[1:], **settings)

    def ended(self, seconds=0.0):
        """Has it ended, or will it within so many seconds?"""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def until(self, condition):
        """Wait for it, or for the end of the process, which must come; returns the seconds that took."""
        since = time.monotonic()
        while not condition() and not self.ended(0.002):
            if time.monotonic() - since > PATIENCE:
                self.kill()
        return time.monotonic() - since

    def kill(self):
        """Whether the process died of it, and had not ended before."""
        self._process.kill()
        return self._process.wait() == -9

    def code(self):
        """The exit code, once it has ended; -9 if it would not."""
        if not self.ended(PATIENCE):
            self.kill()
        return self._process.returncode

    def says(self, text):
        return text in self._log.read_bytes()

    def at_work(self):
        return self.says(_AT_WORK)

    def went_on(self, records=None):
        return self.says(f"{_GOES_ON}{'' if records is None else f'{records:,} records'}".encode())

    def all_committed(self):
        """A damaged checkpoint says nothing here, and is found when the process has ended."""
        with suppress(RefusedError):
            saved = self._place.saved()
            return saved is not None and saved.records == self._records
        return False


def drawn(rng: random.Random):
    """The moments of one trial in the order of a run's progress; scoring is drawn to a little beyond its end."""
    moments = []
    for _ in range(rng.randint(3, 6)):
        phase = rng.choices(("start", "score", "publish"), (10, 75, 15))[0]
        progress = rng.uniform(0, 1.05)
        if phase == "publish":
            moments.append((2 + progress, Moment(phase, rng.uniform(0, 2))))
        else:
            moments.append((progress, Moment(phase, progress if phase == "score" else rng.random())))
    return [moment for _, moment in sorted(moments, key=lambda drawn: drawn[0])]


def undisturbed(job, inputs, folder):
    """Run a job to its end, with a commit after every chunk, and take the time of its phases."""
    folder.mkdir(parents=True)
    place, log = Place(folder, job.output, job.errors), folder.with_suffix(".log")
    command = job.command(RERANK, TINY, inputs, folder, interval=0)
    running = Running(command, job, inputs, place, log, afresh=True)
    start = running.until(running.at_work)
    score = running.until(lambda: running.all_committed() or place.final.exists())
    publish = max(running.until(place.final.exists), 0.003)
    size = _size(place.final)
    code, wrong = running.code(), lost_and_doubled(place, inputs.expected(job))
    for what, is_wrong in (
        (f"exit code {code}, see {log}", code != job.code),
        (f"{log} does not say when work begins", not running.at_work()),
        (f"left behind: {', '.join(place.leftovers())}", place.leftovers()),
        ("there was an output before it was whole", size != _size(place.final)),
        (f"{wrong} rows lost and doubled", any(wrong)),
    ):
        if is_wrong:
            raise BrokenError(f"undisturbed {job.name}: {what}: {shlex.join(command)}")
    return Bench(job, inputs, place, {"start": start, "score": score, "publish": publish})


def _size(path):
    return path.stat().st_size if path.exists() else None


def attempt(bench, interval, moments, budget, folder):
    """One trial, with one kill of the budget in hand: kill, look, start again, and at last let it end."""
    job, inputs, place = bench.job, bench.inputs, Place(folder / "out", bench.job.output, bench.job.errors)
    place.folder.mkdir(parents=True)
    command = job.command(RERANK, TINY, inputs, place.folder, interval)
    processes, kills, findings, committed = [], [], [], 0

    def started(*, afresh=False):
        log = folder / f"{len(processes) + 1}.log"
        processes.append(Running(command, job, inputs, place, log, afresh=afresh))
        return processes[-1]

    for number, moment in enumerate(moments):
        if number and not budget.acquire(blocking=False):
            break
        if not _struck(started(afresh=moment.phase == "start"), moment, bench, committed / inputs.records):
            budget.release()
            break
        saved, findings = after_a_kill(place, bench.whole, committed)
        kills.append(_stage(processes[-1], place, saved, inputs.records))
        committed = saved.records if saved else 0
        if findings or place.final.exists():
            break
    lost = doubled = 0
    if not findings:
        published = place.final.exists() and len(kills) == len(processes)
        last = started() if len(kills) == len(processes) else processes[-1]
        findings = _complaints(last, {job.code, job.code_when_done} if published else {job.code}, committed)
        findings += after_the_end(place, bench.whole)
        lost, doubled = lost_and_doubled(place, inputs.expected(job))
    resumes = sum(process.went_on() for process in processes)
    return Trial(job.name, tuple(kills), resumes, lost, doubled, tuple(findings), shlex.join(command), folder)


def _struck(running, moment, bench, done):
    """Kill at the moment; False if the process had ended before. `done` is the share that was committed already."""
    if moment.phase == "start":
        running.ended(moment.share * bench.seconds["start"])
    else:
        running.until(running.at_work)
    if moment.phase == "score":
        running.ended(max(0.0, moment.share - done) * bench.seconds["score"])
    elif moment.phase == "publish":
        running.until(running.all_committed)
        running.ended(moment.share * bench.seconds["publish"])
    return running.kill()


def _stage(running, place, saved, records):
    """Where a kill struck, as well as the files tell."""
    if not running.at_work():
        return "starting"
    if place.final.exists() or (saved and saved.records == records):
        return "publishing"
    return "middle" if saved else "uncommitted"


def _complaints(running, codes, committed):
    """What is wrong with how the last process ended."""
    code = running.code()
    findings = [] if code in codes else [f"exit code {code}"]
    if committed and not running.went_on(committed):
        findings.append(f"did not go on after the {committed} records that were committed")
    return findings
