"""Slices on their way to workers: handed out in order, taken back in any order, passed on in order again.

Between the first slice that is not scored and the last one handed out there are at most `window`, so that one slow
worker cannot make the others pile up results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rerank_cli.engine.plan import Index
from rerank_cli.engine.results import Logits, PairScores
from rerank_cli.run.recovery.journal import CarriedNotes, Journal, SliceNotes
from rerank_cli.run.scoring.local import ScoredSlice
from rerank_cli.run.stages import Slice
from rerank_cli.run.threads import Ahead


@dataclass(slots=True)
class Task:
    """A slice that was handed out, its finished rows, and how workers that it cost ended."""

    number: int
    part: Slice
    notes: SliceNotes
    carried: CarriedNotes
    deaths: list[str] = field(default_factory=list)
    scores: PairScores | None = None

    def note(self, pairs: Index, scores: Logits) -> None:
        """A row is scored: kept in the journal, and for the worker that gets the slice next."""
        self.carried.done(pairs, scores)
        self.notes.done(pairs, scores)

    @property
    def place(self) -> str:
        """Where its records are: `path:line`, and the last one's line."""
        records = self.part.chunk.records
        first, last = records[0].position, records[-1].position
        return f"{first}" if first == last else f"{first} to {last if last.path != first.path else last.line}"


class TaskQueue:
    """The slices of one run, from `feed`, each noted in the journal."""

    def __init__(self, feed: Ahead[Slice], journal: Journal, window: int) -> None:
        self._feed = feed
        self._journal = journal
        self._window = window
        self._out: deque[Task] = deque()
        self._returned: deque[Task] = deque()
        self._number = 0
        self._failure: BaseException | None = None

    @property
    def has_room(self) -> bool:
        return bool(self._returned) or len(self._out) < self._window

    @property
    def first(self) -> Task | None:
        """The first slice that is not scored."""
        return next((task for task in self._out if task.scores is None), None)

    def take(self) -> Task | None:
        """The next slice to score: those that came back unscored, then new ones; None if there is none yet."""
        if self._returned:
            return self._returned.popleft()
        if len(self._out) >= self._window or self._failure is not None:
            return None
        try:
            found = self._feed.take()
        except BaseException as error:  # raised again once the slices before it are passed on
            self._failure = error
            return None
        for part in found:
            notes = self._journal.notes(part.chunk.reached.digest, part.part, part.left)
            self._out.append(Task(self._number, part, notes, notes.carried()))
            self._number += 1
            return self._out[-1]
        return None

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Slices whose worker is gone, in order."""
        self._returned.extendleft(reversed(tasks))

    def finished(self) -> Iterator[ScoredSlice]:
        """Scored slices, in order, up to the first that is not scored."""
        while self._out and (scores := self._out[0].scores) is not None:
            yield self._out.popleft().part, scores

    def over(self) -> bool:
        """Whether all is scored and passed on. Raises what ended the feed early."""
        if self._out:
            return False
        if self._failure is not None:
            raise self._failure
        return self._feed.exhausted
