"""The slices of a run in workers: handed out in order, finished in any order, passed on in order.

At most `window()` slices are between the first unscored one and the last one handed out, so that a slow worker does not
make the results of the others pile up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Reversible
from dataclasses import dataclass, field

from rerank_cli.engine.results import Logits, PairScores
from rerank_cli.engine.rows.plan import Index
from rerank_cli.run.recovery.journal import CarriedNotes, Journal, SliceNotes
from rerank_cli.run.scoring.local import ScoredSlice
from rerank_cli.run.stages import Slice
from rerank_cli.run.threads import Ahead


@dataclass(slots=True)
class Task:
    """A slice that was handed out, its finished rows, and how workers died on it; `lost` counts those that died with
    their node.
    """

    part: Slice
    notes: SliceNotes
    carried: CarriedNotes
    deaths: list[str] = field(default_factory=list)
    lost: int = 0
    scores: PairScores | None = None

    def note(self, pairs: Index, scores: Logits) -> None:
        """Store a scored row in the journal, and for another worker that may get the slice."""
        self.carried.done(pairs, scores)
        self.notes.done(pairs, scores)

    @property
    def place(self) -> str:
        """Where its records are: `path:line`, and the line of the last one."""
        records = self.part.chunk.records
        first, last = records[0].position, records[-1].position
        return f"{first}" if first == last else f"{first} to {last if last.path != first.path else last.line}"


class TaskQueue:
    """The slices that `feed` yields, each with its notes in the journal."""

    def __init__(self, feed: Ahead[Slice], journal: Journal, window: Callable[[], int]) -> None:
        self._feed = feed
        self._journal = journal
        self._window = window
        self._out: deque[Task] = deque()
        self._returned: deque[Task] = deque()
        self._failure: BaseException | None = None

    @property
    def has_room(self) -> bool:
        return bool(self._returned) or len(self._out) < self._window()

    @property
    def first(self) -> Task | None:
        """The first unscored slice that was handed out."""
        return next((task for task in self._out if task.scores is None), None)

    def take(self) -> Task | None:
        """The next slice to score, returned ones first; None if there is none yet."""
        if self._returned:
            return self._returned.popleft()
        if len(self._out) >= self._window() or self._failure is not None:
            return None
        try:
            found = self._feed.take()
        except BaseException as error:  # raised by `over`, after the slices before it are passed on
            self._failure = error
            return None
        for part in found:
            notes = self._journal.notes(part.chunk.reached.digest, part.part, part.left, early=part.chunk.early)
            self._out.append(Task(part, notes, notes.carried()))
            return self._out[-1]
        return None

    def give_back(self, tasks: Reversible[Task]) -> None:
        """Return the slices of a worker that has ended, in order."""
        self._returned.extendleft(reversed(tasks))

    def finished(self) -> Iterator[ScoredSlice]:
        """Remove and yield scored slices, in order, up to the first unscored one."""
        while self._out and (scores := self._out[0].scores) is not None:
            yield self._out.popleft().part, scores

    def over(self) -> bool:
        """Whether all slices are scored and passed on. Raises the error that ended the feed early."""
        if self._out:
            return False
        if self._failure is not None:
            raise self._failure
        return self._feed.exhausted
