"""Slices of pairs to their scores, in order: what stands between a job's chunks and its rankings.

A `Scoring` may be a model in this process, or anything put around one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TypeAlias

from rerank_cli.engine.contract import Session, StopRequested
from rerank_cli.engine.prepare import Prepared
from rerank_cli.engine.results import PairScores, by_pair
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.stages import Slice
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.threads import Ahead

ScoredSlice: TypeAlias = tuple[Slice, PairScores]
Scoring: TypeAlias = Callable[[Iterable[Slice]], Generator[ScoredSlice]]
"""Takes slices on its own terms (ahead, on other threads), yields each with its scores, in order.

Raises StopRequested where somebody asked to stop before the last of them.
"""
MakeScoring: TypeAlias = Callable[[Callable[[], bool]], Scoring]
"""Makes the scoring of a run from a function that says whether to stop."""


def in_this_process(
    session: Session, journal: Journal, stats: RunStatistics, should_stop: Callable[[], bool]
) -> Scoring:
    """Score with one model: the next slice is tokenized while the device works on this one."""

    def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
        with closing(Ahead(_prepared(slices, session, stats), until=should_stop)) as ready:
            for part, prepared in stats.waiting("wait for rows", ready):
                notes = journal.notes(part.chunk.reached.digest, part.part, part.left)
                with stats.timing("score"):
                    logits = session.score(prepared, should_stop, notes)
                yield part, by_pair(prepared, logits)
            if not ready.exhausted:
                raise StopRequested

    return score


def _prepared(slices: Iterable[Slice], session: Session, stats: RunStatistics) -> Iterator[tuple[Slice, Prepared]]:
    for part in slices:
        with stats.timing("tokenize"):
            prepared = session.prepare(part.texts)
        yield part, prepared
