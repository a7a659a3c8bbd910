"""Statistics of a run in progress: what was read, scored and written, and the time spent by stage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
_COUNTED = ("records", "rejected", "pairs", "tokens", "truncated", "duplicates", "chunks", "bytes_done")


@dataclass(slots=True)
class RunStatistics:
    """Counts of written chunks. Each field is written by one thread; other threads may read it a chunk late.

    `seconds` is the time by stage; stages overlap, so that their sum may exceed `elapsed`.
    """

    records: int = 0
    rejected: int = 0
    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    duplicates: int = 0
    chunks: int = 0
    bytes_done: int = 0
    total_bytes: int | None = None
    started: float = field(default_factory=time.monotonic)
    scoring_since: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    resumed_records: int = 0
    _pairs_before: int = 0
    _tokens_before: int = 0
    _share_before: float = 0.0

    def counts(self) -> dict[str, int]:
        """The counts that a resumed run continues from."""
        return {name: getattr(self, name) for name in _COUNTED}

    def resume_from(self, counts: Mapping[str, int]) -> None:
        """Continue from an earlier run's counts; rates and ETA remain those of this run."""
        for name in _COUNTED:
            setattr(self, name, counts.get(name, 0))
        self.resumed_records, self._pairs_before, self._tokens_before = self.records, self.pairs, self.tokens
        self._share_before = self.share_done or 0.0

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def waiting(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time spent waiting for each counts for the stage."""
        upcoming = iter(items)
        while True:
            with self.timing(stage):
                try:
                    item = next(upcoming)
                except StopIteration:
                    return
            yield item

    @property
    def elapsed(self) -> float:
        """Seconds since the run started, model loading included."""
        return time.monotonic() - self.started

    @property
    def pairs_per_second(self) -> float:
        """Pairs per second of scoring time, model loading excluded."""
        return (self.pairs - self._pairs_before) / max(1e-9, self._scoring())

    @property
    def tokens_per_second(self) -> float:
        return (self.tokens - self._tokens_before) / max(1e-9, self._scoring())

    @property
    def share_done(self) -> float | None:
        """Share of the input that is processed, 0 to 1; None if the input's size is unknown."""
        return min(1.0, self.bytes_done / self.total_bytes) if self.total_bytes else None

    @property
    def eta_seconds(self) -> float | None:
        share = self.share_done
        if share is None or share <= self._share_before:
            return None
        return self._scoring() * (1 - share) / (share - self._share_before)

    def _scoring(self) -> float:
        return 0.0 if self.scoring_since is None else time.monotonic() - self.scoring_since


def counted(number: int, noun: str) -> str:
    """`1 pair`, `2,000 pairs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
