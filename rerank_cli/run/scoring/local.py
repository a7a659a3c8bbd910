"""`Scoring`, which turns slices of pairs into scores, and its plain implementation `in_this_process`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import TypeAlias

from rerank_cli.engine.contract import RowNotes, Session, StopRequested
from rerank_cli.engine.results import Logits, PairScores, by_pair
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.stages import Slice
from rerank_cli.run.threads import Ahead

ScoredSlice: TypeAlias = tuple[Slice, PairScores]
ShouldStop: TypeAlias = Callable[[], bool]
Scoring: TypeAlias = Callable[[Iterable[Slice]], Generator[ScoredSlice]]
"""Reads slices ahead on other threads; yields each with its scores, in order. Raises StopRequested if stopped early."""
MakeScoring: TypeAlias = Callable[[ShouldStop], Scoring]


class CountedNotes:
    """The notes of a slice; `scored` is called with the pairs and tokens of each row, as shares of those of the slice.

    A row has sequences: distinct pairs, or passages of long documents.
    """

    def __init__(self, notes: RowNotes, prepared: Prepared, scored: Callable[[float, float], None]) -> None:
        self._notes = notes
        self._scored = scored
        sequences = max(1, prepared.distinct_pairs)
        self._pairs, self._tokens = len(prepared.tokens) / sequences, float(prepared.tokens.sum()) / sequences

    def known(self, pairs: Index) -> Logits | None:
        found = self._notes.known(pairs)
        if found is not None:
            self._count(pairs)
        return found

    def done(self, pairs: Index, scores: Logits) -> None:
        self._notes.done(pairs, scores)
        self._count(pairs)

    def _count(self, pairs: Index) -> None:
        self._scored(len(pairs) * self._pairs, len(pairs) * self._tokens)


def in_this_process(
    session: Session,
    journal: Journal,
    stats: RunStatistics,
    should_stop: ShouldStop,
    exclusive: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Scoring:
    """Score with one model in `exclusive` contexts. A thread tokenizes the next slice while the device computes."""

    def prepared(slices: Iterable[Slice]) -> Iterator[tuple[Slice, Prepared]]:
        for part in slices:
            with stats.timing("tokenize"):
                ready = session.prepare(part.texts)
            yield part, ready

    def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
        with closing(Ahead(prepared(slices), until=should_stop)) as ready:
            for part, pairs in stats.waiting("wait for rows", ready):
                notes = journal.notes(part.chunk.reached.digest, part.part, part.left, early=part.chunk.early)
                counted = CountedNotes(notes, pairs, partial(stats.scored, part.chunk))
                with stats.timing("score"), exclusive():
                    logits = session.score(pairs, should_stop, counted)
                yield part, by_pair(pairs, logits)
            if not ready.exhausted:
                raise StopRequested

    return score
