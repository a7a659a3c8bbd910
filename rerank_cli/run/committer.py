"""Writes scored chunks in order: rank, write, make durable, record. What is committed is a prefix of the output."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rerank_cli.choices import OnError
from rerank_cli.errors import InputError
from rerank_cli.evaluation.same_pass import SamePassEvaluation
from rerank_cli.formats import ErrorsFile, Sink
from rerank_cli.records import Outcome, Ranking, Rejection
from rerank_cli.run.chunks import InputPosition
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.stages import Scored
from rerank_cli.storage.files import Committed

_AFTER_SCORING = ("non_finite_score", "too_long")  # codes of records that are rejected by their scores


@dataclass(frozen=True, slots=True)
class Commit:
    """The input position of a commit, and the durable parts of output, errors file (bytes) and evaluated rankings."""

    reached: InputPosition
    output: Committed
    quarantine: int
    judged: Committed | None = None


@dataclass(slots=True)
class Committer:
    """Takes scored chunks in order. `rank` gives a chunk's outcomes; `record` is called after a commit is durable.

    Commits are `interval` seconds apart, by default as far as suits the output. `may_write` is called before every
    chunk and may raise RefusedError. `committed` is the number of chunks that are durable. Used by one thread; others
    may read `committed`.
    """

    sink: Sink
    quarantine: ErrorsFile | None
    stats: RunStatistics
    record: Callable[[Commit], None]
    rank: Callable[[Scored], list[Outcome]]
    on_error: OnError
    interval: float | None = None
    same_pass: SamePassEvaluation | None = None
    may_write: Callable[[], None] = lambda: None
    committed: int = 0
    _taken: int = 0
    _reached: InputPosition | None = None
    _committed_at: float = field(default_factory=time.monotonic)

    def take(self, scored: Scored) -> None:
        """Rank, write, count one chunk; commit if the interval has passed. `--on-error fail`: may raise InputError."""
        outcomes = self.rank(scored)
        rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
        unscored = [rejection for rejection in rejected if rejection.code in _AFTER_SCORING]
        if unscored and self.on_error is OnError.FAIL:
            raise InputError(f"{unscored[0]}. Fix: --on-error skip, or emit")
        stats, chunk, pairs = self.stats, scored.chunk, scored.pairs
        self.may_write()
        with stats.timing("write"):
            self.sink.write([o for o in outcomes if self.on_error is OnError.EMIT or not isinstance(o, Rejection)])
            if self.same_pass:
                self.same_pass.take(outcomes)
            if self.quarantine:
                for rejection in rejected:
                    self.quarantine.write(rejection)
        stats.written(chunk)
        stats.rejected += len(rejected)
        stats.empty += sum(isinstance(outcome, Ranking) and not outcome.request.candidates for outcome in outcomes)
        stats.tokens += int(pairs.tokens.sum())
        stats.truncated += int(pairs.truncated.sum())
        stats.duplicates += pairs.duplicates
        self._reached = chunk.reached
        self._taken += 1
        interval = self.sink.patience if self.interval is None else self.interval
        if time.monotonic() - self._committed_at >= interval:
            self.commit()

    def commit(self) -> None:
        """Make written chunks durable, then record the commit. Does nothing if no chunk was written since the last."""
        if self._reached is None:
            return
        with self.stats.timing("commit"):
            output = self.sink.commit()
            quarantine = self.quarantine.commit() if self.quarantine else 0
            judged = self.same_pass.commit() if self.same_pass else None
            self.record(Commit(self._reached, output, quarantine, judged))
        self._reached = None
        self.committed = self._taken
        self._committed_at = time.monotonic()
