"""Slices on their way to workers and back: handed out in order, taken back in any, passed on in order again.

Between the first slice that is not scored and the last one handed out lie no more than `window`, so that one slow
worker cannot make the others pile up results. Knows no processes.
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
class Errand:
    """A slice that was handed out: rows of it that are done, and what became of workers that died on it."""

    number: int
    part: Slice
    notes: SliceNotes
    carried: CarriedNotes
    deaths: list[str] = field(default_factory=list)
    scores: PairScores | None = None

    def note(self, pairs: Index, scores: Logits) -> None:
        """A row is done: the journal keeps it, and so does whoever gets the slice next."""
        self.carried.done(pairs, scores)
        self.notes.done(pairs, scores)

    @property
    def place(self) -> str:
        """Where its records stand: `path:line`, and the last one's line."""
        records = self.part.chunk.records
        first, last = records[0].position, records[-1].position
        return f"{first}" if first == last else f"{first} to {last if last.path != first.path else last.line}"


class Handout:
    """One run's slices, from `feed`, each noted in the journal."""

    def __init__(self, feed: Ahead[Slice], journal: Journal, window: int) -> None:
        self._feed = feed
        self._journal = journal
        self._window = window
        self._out: deque[Errand] = deque()
        self._returned: deque[Errand] = deque()
        self._number = 0
        self._failure: BaseException | None = None

    @property
    def has_room(self) -> bool:
        return bool(self._returned) or len(self._out) < self._window

    @property
    def first(self) -> Errand | None:
        """The first slice that is not scored."""
        return next((errand for errand in self._out if errand.scores is None), None)

    def take(self) -> Errand | None:
        """What is to be scored next: slices that came back unscored, then new ones. None where there is nothing yet."""
        if self._returned:
            return self._returned.popleft()
        if len(self._out) >= self._window or self._failure is not None:
            return None
        try:
            found = self._feed.take()
        except BaseException as error:  # raised again once the slices before it are through
            self._failure = error
            return None
        for part in found:
            notes = self._journal.notes(part.chunk.reached.digest, part.part, part.left)
            self._out.append(Errand(self._number, part, notes, notes.carried()))
            self._number += 1
            return self._out[-1]
        return None

    def give_back(self, errands: Sequence[Errand]) -> None:
        """Slices whose worker is gone, in order."""
        self._returned.extendleft(reversed(errands))

    def finished(self) -> Iterator[ScoredSlice]:
        """Slices that are scored, in order, up to the first that is not."""
        while self._out and (scores := self._out[0].scores) is not None:
            yield self._out.popleft().part, scores

    def over(self) -> bool:
        """Whether all is scored and passed on. Raises what ended the feed early."""
        if self._out:
            return False
        if self._failure is not None:
            raise self._failure
        return self._feed.exhausted
