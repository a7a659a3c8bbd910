"""`Scoring`, which turns slices of pairs into scores, and its plain implementation `in_this_process`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TypeAlias

from rerank_cli.engine.contract import Session, StopRequested
from rerank_cli.engine.prepare import Prepared
from rerank_cli.engine.results import PairScores, by_pair
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.stages import Slice
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.threads import Ahead

ScoredSlice: TypeAlias = tuple[Slice, PairScores]
ShouldStop: TypeAlias = Callable[[], bool]
Scoring: TypeAlias = Callable[[Iterable[Slice]], Generator[ScoredSlice]]
"""Reads slices ahead on other threads; yields each with its scores, in order. Raises StopRequested if stopped early."""
MakeScoring: TypeAlias = Callable[[ShouldStop], Scoring]


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
                with stats.timing("score"), exclusive():
                    logits = session.score(pairs, should_stop, notes)
                yield part, by_pair(pairs, logits)
            if not ready.exhausted:
                raise StopRequested

    return score
