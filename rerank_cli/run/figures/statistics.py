"""Statistics of a run in progress: what was scored and written, and the time spent by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rerank_cli.run.chunks import Chunk

T = TypeVar("T")
_COUNTED = ("records", "rejected", "pairs", "tokens", "truncated", "duplicates", "chunks", "bytes_done")


@dataclass(slots=True)
class _Unwritten:
    """What is scored of a chunk of `pairs` pairs and `size` bytes that is not written yet; estimates, see `scored`."""

    pairs: int
    size: int
    scored_pairs: float = 0.0
    scored_tokens: float = 0.0


@dataclass(slots=True)
class RunStatistics:
    """Counts of written chunks, and progress within the chunks that are being scored.

    `empty` counts queries without candidates. `seconds` is the time by stage; stages overlap, so that their sum may
    exceed `elapsed`. Without `by_rows`, `scored` counts nothing. `workers` shows each worker of the run, if it has any.
    """

    records: int = 0
    rejected: int = 0
    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    duplicates: int = 0
    chunks: int = 0
    bytes_done: int = 0
    empty: int = 0
    total_bytes: int | None = None
    started: float = field(default_factory=time.monotonic)
    scoring_since: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    by_rows: bool = True
    resumed_records: int = 0
    workers: Callable[[], list[dict[str, Any]]] = list
    _unwritten: dict[int, _Unwritten] = field(default_factory=dict)  # by number of the chunk
    _pairs_before: int = 0
    _tokens_before: int = 0
    _share_before: float = 0.0

    def counts(self) -> dict[str, int]:
        """The counts that a resumed run continues from."""
        found = {name: getattr(self, name) for name in _COUNTED}
        return found | {"empty": self.empty} if self.empty else found

    def resume_from(self, counts: Mapping[str, int]) -> None:
        """Continue from an earlier run's counts; rates and ETA remain those of this run."""
        for name in (*_COUNTED, "empty"):
            setattr(self, name, counts.get(name, 0))
        self.resumed_records, self._pairs_before, self._tokens_before = self.records, self.pairs, self.tokens
        self._share_before = self.share_done or 0.0

    def scored(self, chunk: Chunk, pairs: float, tokens: float) -> None:
        """Count a scored row of a chunk that is not written yet, by its share of the pairs and tokens of its slice."""
        if not self.by_rows:
            return
        found = self._unwritten.setdefault(chunk.number, _Unwritten(chunk.pairs, chunk.bytes_read - chunk.bytes_before))
        found.scored_pairs += pairs
        found.scored_tokens += tokens

    def written(self, chunk: Chunk) -> None:
        """Count a chunk as written instead of scored."""
        self._unwritten.pop(chunk.number, None)
        self.records += len(chunk.records)
        self.pairs += chunk.pairs
        self.chunks += 1
        self.bytes_done = chunk.bytes_read

    @property
    def pairs_done(self) -> int:
        """Pairs of written chunks, and those of other chunks that are scored."""
        return self.pairs + sum(round(found.scored_pairs) for found in list(self._unwritten.values()))

    @property
    def tokens_done(self) -> int:
        """The same for tokens."""
        return self.tokens + sum(round(found.scored_tokens) for found in list(self._unwritten.values()))

    @property
    def own_pairs(self) -> int:
        """Pairs that this run scored, without those of an earlier run that it continues."""
        return self.pairs_done - self._pairs_before

    @property
    def own_tokens(self) -> int:
        """The same for tokens."""
        return self.tokens_done - self._tokens_before

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
        return self.own_pairs / max(1e-9, self.scoring)

    @property
    def tokens_per_second(self) -> float:
        return self.own_tokens / max(1e-9, self.scoring)

    @property
    def share_done(self) -> float | None:
        """Share of the input that is scored, 0 to 1; None if the input's size is unknown."""
        if not self.total_bytes:
            return None
        begun = [found.size * found.scored_pairs / found.pairs for found in list(self._unwritten.values())]
        return min(1.0, (self.bytes_done + sum(begun)) / self.total_bytes)

    @property
    def eta_seconds(self) -> float | None:
        share = self.share_done
        if share is None or share <= self._share_before:
            return None
        return self.scoring * (1 - share) / (share - self._share_before)

    @property
    def scoring(self) -> float:
        """Seconds since the model was loaded."""
        return 0.0 if self.scoring_since is None else time.monotonic() - self.scoring_since
