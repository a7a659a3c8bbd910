"""Figures of a job with an output folder: those of this process while it works, and the summary at its end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rerank_cli.display import counted
from rerank_cli.engine.contract import ModelFacts
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.folders.inputs import Item
from rerank_cli.run.folders.state import Failure, Record
from rerank_cli.run.summary import versions


@dataclass(slots=True)
class FolderStatistics:
    """Counts of this process over all files it has done, with the one it is doing.

    What an earlier process had done of a file is not counted. `total_bytes` and `share_done` are those of all inputs,
    also of what other processes have done as far as this one has looked.
    """

    files: int = 0
    total_bytes: int | None = None
    bytes_elsewhere: int = 0  # of inputs that are done, without the current one
    current: RunStatistics | None = None
    current_bytes: int = 0
    model: ModelFacts | None = None
    started: float = field(default_factory=time.monotonic)
    scoring_since: float | None = None
    _sums: dict[str, int] = field(default_factory=dict)
    _scored_for: float = 0.0
    _share_before: float | None = None

    def look(self, items: Iterable[Item], done: Iterable[Item]) -> None:
        """Take note of all items, and of those that are done."""
        self.total_bytes = sum(item.size for item in items)
        self.bytes_elsewhere = sum(item.size for item in done)
        if self._share_before is None:
            self._share_before = self.share_done or 0.0

    def workers(self) -> list[dict[str, Any]]:
        """The workers of the file at hand, if it has any."""
        return self.current.workers() if self.current else []

    def begin(self, item: Item) -> RunStatistics:
        """The statistics of a file that begins."""
        self.current, self.current_bytes = RunStatistics(), item.size
        return self.current

    def end(self, done: bool) -> None:
        """Add the current file to the sums."""
        stats = self.current
        if stats is None:
            return
        self._scored_for += stats.scoring
        if self.scoring_since is None:
            self.scoring_since = stats.scoring_since
        sums = self._counts()
        self.current = None
        self._sums = sums
        if done:
            self.files += 1
            self.bytes_elsewhere += self.current_bytes

    def _counts(self) -> dict[str, int]:
        stats = self.current
        if stats is None:
            return dict(self._sums)
        own = {
            "records": stats.records - stats.resumed_records,
            "pairs": stats.own_pairs,
            "tokens": stats.own_tokens,
            "rejected": stats.rejected,
            "truncated": stats.truncated,
        }
        return {name: self._sums.get(name, 0) + value for name, value in own.items()}

    @property
    def records(self) -> int:
        return self._counts().get("records", 0)

    @property
    def pairs_done(self) -> int:
        return self._counts().get("pairs", 0)

    @property
    def tokens_done(self) -> int:
        return self._counts().get("tokens", 0)

    @property
    def rejected(self) -> int:
        return self._counts().get("rejected", 0)

    @property
    def truncated(self) -> int:
        return self._counts().get("truncated", 0)

    @property
    def scoring(self) -> float:
        """Seconds of scoring, without loading the model and without waiting for other processes."""
        current = self.current
        return self._scored_for + (current.scoring if current else 0.0)

    @property
    def pairs_per_second(self) -> float:
        return self.pairs_done / max(1e-9, self.scoring)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens_done / max(1e-9, self.scoring)

    @property
    def share_done(self) -> float | None:
        if not self.total_bytes:
            return None
        current = self.current  # another thread may set it to None
        share = (current.share_done if current else None) or 0.0
        return min(1.0, (self.bytes_elsewhere + share * self.current_bytes) / self.total_bytes)

    @property
    def eta_seconds(self) -> float | None:
        """By the share that all processes have done since this one started."""
        share, before = self.share_done, self._share_before or 0.0
        if share is None or share <= before or self.scoring <= 0:
            return None
        return self.elapsed * (1 - share) / (share - before)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """Result of a job with an output folder. `stats` counts what this process did, `done` all finished outputs.

    `interrupted` is the signal or `max-duration`; `failures` are the inputs that could not be done; `failure` is the
    message of the error that ended this process. With `nothing_to_do` the folder was complete already.
    """

    output: str
    stats: FolderStatistics
    files: int
    done: tuple[Record, ...]
    failures: tuple[Failure, ...] = ()
    interrupted: str | None = None
    failure: str | None = None
    nothing_to_do: bool = False

    @property
    def rejected(self) -> int:
        return sum(record.rejected for record in self.done)

    @property
    def exit_reason(self) -> str:
        """As of a single run: `finished`, `rejected`, `failed`, `max-duration`, or the name of a signal."""
        if self.failure:
            return "failed"
        return self.interrupted or ("rejected" if self.rejected else "finished")

    def as_json(self) -> dict[str, Any]:
        stats = self.stats
        return {
            "exit_reason": self.exit_reason,
            "error": self.failure,
            "output": self.output,
            "files": self.files,
            "files_done": len(self.done),
            "files_failed": len(self.failures),
            "failures": [{"output": found.output, "error": found.message} for found in self.failures],
            "records": sum(record.records for record in self.done),
            "pairs": sum(record.pairs for record in self.done),
            "rejected": self.rejected,
            "this_process": {
                "files": stats.files,
                "records": stats.records,
                "pairs": stats.pairs_done,
                "tokens": stats.tokens_done,
                "rejected": stats.rejected,
                "truncated_pairs": stats.truncated,
                "seconds": {"total": round(stats.elapsed, 3), "scoring": round(stats.scoring, 3)},
                "pairs_per_second": round(stats.pairs_per_second, 2),
                "tokens_per_second": round(stats.tokens_per_second, 1),
            },
            "model": asdict(stats.model) if stats.model else None,
            "versions": versions(),
        }

    def line(self) -> str:
        """What is done, and what this process did of it, on one line."""
        stats, records = self.stats, sum(record.records for record in self.done)
        whole = f"{len(self.done):,} of {counted(self.files, 'file')} done with {counted(records, 'record')}"
        if self.rejected:
            whole += f", {counted(self.rejected, 'record')} rejected"
        own = f"{counted(stats.files, 'file')} and {counted(stats.pairs_done, 'pair')} by this process"
        return f"{whole}; {own} in {stats.elapsed:.1f} s, {stats.pairs_per_second:,.0f} pairs/s"
