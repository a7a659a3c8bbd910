"""The pool's record of one worker, and how it is shown."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.scoring.workers.messages import Report
from rerank_cli.run.scoring.workers.task_queue import Task
from rerank_cli.run.scoring.workers.transport import Link, Place


@dataclass(slots=True, eq=False)
class Member:
    """A worker: its unfinished tasks, its last report, and how it ended.

    `ready` once its model is loaded; `restarts` counts the workers at the same place that died one after the other
    without finishing a task, `pairs` what this one has scored.
    """

    number: int
    of: int
    place: Place
    link: Link
    restarts: int = 0
    ready: bool = False
    tasks: deque[Task] = field(default_factory=deque)
    report: Report = field(default_factory=Report)
    death: str = ""
    blameless: bool = False
    pairs: int = 0

    @property
    def name(self) -> str:
        """`worker 2 of 8 (cuda on 10.0.0.5)`; without a node where that is this machine."""
        where = f" on {self.link.node}" if self.link.node and not self.link.here else ""
        return f"worker {self.number} of {self.of} ({self.place.device}{where})"

    @property
    def state(self) -> str:
        """`waiting` for a place, `loading` its model, `ready`, or `ended`."""
        if self.death:
            return "ended"
        return "ready" if self.ready else "loading" if self.link.node else "waiting"

    def account(self, report: Report, stats: RunStatistics) -> None:
        for stage, seconds in report.seconds.items():
            more = seconds - self.report.seconds.get(stage, 0.0)
            stats.seconds[stage] = stats.seconds.get(stage, 0.0) + more
        self.report = report

    def shown(self) -> dict[str, Any]:
        """For progress and `rerank status`; `queue` is the number of slices that were handed to it."""
        return {
            "worker": self.number,
            "node": self.link.node,
            "device": self.place.device,
            "state": self.state,
            "queue": len(self.tasks),
            "pairs": self.pairs,
        }
