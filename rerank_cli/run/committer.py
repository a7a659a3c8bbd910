"""Finished chunks into the output, one after the other: ranked, written, made durable, and only then recorded.

What is committed is a prefix of the final output. Commits are as frequent as the output finds worth its while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rerank_cli.choices import OnError
from rerank_cli.errors import InputError
from rerank_cli.evaluation.same_pass import SamePassEvaluation
from rerank_cli.formats import ErrorsFile, Sink
from rerank_cli.records import Outcome, Rejection
from rerank_cli.run.chunks import InputPosition
from rerank_cli.run.stages import Scored
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.storage.files import Committed


@dataclass(frozen=True, slots=True)
class Entry:
    """A point to go on from: where the input was, and how much of output, quarantine and judged orders is durable."""

    reached: InputPosition
    output: Committed
    quarantine: int
    judged: Committed | None = None


class Committer:
    """Takes scored chunks in order. `rank` makes outcomes of one; `record` is told every commit, after it is safe.

    Commits are `patience` seconds apart, or as far as the output finds worth its while. `committed` counts the chunks
    that are safe.
    """

    def __init__(
        self,
        sink: Sink,
        quarantine: ErrorsFile | None,
        stats: RunStatistics,
        record: Callable[[Entry], None],
        rank: Callable[[Scored], list[Outcome]],
        on_error: OnError,
        patience: float | None = None,
        judging: SamePassEvaluation | None = None,
    ) -> None:
        self._sink = sink
        self._judging = judging
        self._quarantine = quarantine
        self._tally = stats
        self._record = record
        self._rank = rank
        self._on_error = on_error
        self._patience = sink.patience if patience is None else patience
        self._reached: InputPosition | None = None
        self._taken = 0
        self.committed = 0
        self._committed_at = time.monotonic()

    def take(self, scored: Scored) -> None:
        """Write one chunk and count it; commit if enough time has gone by."""
        outcomes = self._rank(scored)
        rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
        self._refuse_unscored(rejected)
        with self._tally.timing("write"):
            self._write(outcomes, rejected)
        _count(self._tally, scored, len(rejected))
        self._reached = scored.chunk.reached
        self._taken += 1
        if time.monotonic() - self._committed_at >= self._patience:
            self.commit()

    def commit(self) -> None:
        """Make durable what is written, then record it. Nothing to do where nothing was written since."""
        if self._reached is None:
            return
        with self._tally.timing("commit"):
            output = self._sink.commit()
            quarantine = self._quarantine.commit() if self._quarantine else 0
            judged = self._judging.commit() if self._judging else None
            self._record(Entry(self._reached, output, quarantine, judged))
        self._reached = None
        self.committed = self._taken
        self._committed_at = time.monotonic()

    def _write(self, outcomes: list[Outcome], rejected: list[Rejection]) -> None:
        emitted = self._on_error is OnError.EMIT
        self._sink.write([o for o in outcomes if emitted or not isinstance(o, Rejection)])
        if self._judging:
            self._judging.take(outcomes)
        if self._quarantine:
            for rejection in rejected:
                self._quarantine.write(rejection)

    def _refuse_unscored(self, rejected: list[Rejection]) -> None:
        unscored = [rejection for rejection in rejected if rejection.code == "non_finite_score"]
        if unscored and self._on_error is OnError.FAIL:
            raise InputError(f"{unscored[0]}. Fix: --on-error skip, or emit")


def _count(stats: RunStatistics, scored: Scored, rejected: int) -> None:
    stats.records += len(scored.chunk.records)
    stats.rejected += rejected
    stats.pairs += scored.chunk.pairs
    stats.tokens += int(scored.pairs.tokens.sum())
    stats.truncated += int(scored.pairs.truncated.sum())
    stats.duplicates += scored.pairs.duplicates
    stats.chunks += 1
    stats.bytes_done = scored.chunk.bytes_read
