"""A sample of an input: stretches of records spread over it where that is cheap, its beginning else.

Stretches are remembered by place and read again for every pass, so that a pass reads as a run does. Characters of
pairs (query and text of each candidate) tie them to the whole: how many there are to a byte, and tokens to each.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from rerank_cli.formats import InputOptions, Source, open_source
from rerank_cli.formats.reading.sampling import starts
from rerank_cli.records import Place, Record, Rejection, Request, Shape

STRETCHES = 8


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive records from `place` on, of so many bytes on disk.

    Of each record at most `depth` pairs are in the sample: `pairs` and their `characters`; `all_characters` are those
    of all pairs. `ended` tells that the input ended with it.
    """

    place: Place
    depth: int
    records: int = 0
    rejected: int = 0
    pairs: int = 0
    characters: int = 0
    all_characters: int = 0
    bytes: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class InputSample:
    """Stretches of an input of `total_bytes`, None where that is not known.

    `held` are the records of an input that can be read once only. `beyond` is what was read on behind the sample to
    learn how much text there is to a byte.
    """

    options: InputOptions
    shape: Shape | None
    total_bytes: int | None
    stretches: Sequence[Stretch]
    held: Sequence[Record] = ()
    beyond: Stretch | None = None

    @property
    def whole(self) -> bool:
        """Is the sample all there is?"""
        return len(self.stretches) == 1 and self.stretches[0].ended and self.beyond is None

    @property
    def pairs(self) -> int:
        return sum(stretch.pairs for stretch in self.stretches)

    @property
    def records(self) -> int:
        return sum(stretch.records for stretch in self.stretches)

    @property
    def rejected(self) -> int:
        return sum(stretch.rejected for stretch in self.stretches)

    @property
    def characters(self) -> int:
        return sum(stretch.characters for stretch in self.stretches)

    @property
    def measured(self) -> Sequence[Stretch]:
        """All that tells how much text there is to a byte."""
        return [*self.stretches, self.beyond] if self.beyond else self.stretches

    def read(self) -> Iterator[Record]:
        """The records, from disk again unless they are held."""
        if self.held:
            yield from self.held
            return
        for stretch in self.stretches:
            with closing(open_source(self.options)) as source:
                source.go_to(stretch.place, 0, self.shape, None)
                for record in itertools.islice(source, stretch.records):
                    yield shortened(record, stretch.depth)


def take_sample(
    source: Source, records: Iterator[Record], options: InputOptions, pairs: int, patience: float
) -> InputSample:
    """About so many pairs of `source`, whose records are `records`; a file is opened again for it.

    Where only the beginning of a file is taken, reading goes on behind it for `patience` seconds.
    """
    if source.total_bytes is None:
        held = list(take_pairs(records, pairs))
        stretch = replace(_count(held, Place(), pairs), ended=next(records, None) is None)
        return InputSample(options, source.shape, None, [stretch], held)
    with closing(open_source(options)) as again:
        rest = iter(again)
        first = _measure(again, rest, Place(), 0, pairs)
        sample = InputSample(options, source.shape, source.total_bytes, [first])
        if first.ended:
            return sample
        places = starts(source, options, STRETCHES)
        if len(places) > 1 and 2 * first.bytes < source.total_bytes:
            spread = [_stretch_at(place, before, sample, -(-pairs // len(places))) for place, before in places]
            found = [stretch for stretch in spread if stretch.records]
            if len(found) > 1:
                return replace(sample, stretches=found)
        beyond = _measure(again, rest, Place(), first.bytes, None, time.monotonic() + patience)
        return replace(sample, beyond=beyond if beyond.records else None)


def take_pairs(records: Iterator[Record], pairs: int) -> Iterator[Record]:
    """Records, shortened to `pairs` candidates each, until there are so many pairs."""
    taken = 0
    while taken < pairs:
        record = next(records, None)
        if record is None:
            return
        record = shortened(record, pairs)
        taken += len(record.candidates) if isinstance(record, Request) else 0
        yield record


def shortened(record: Record, depth: int) -> Record:
    """A request with its first `depth` candidates alone."""
    if isinstance(record, Request) and len(record.candidates) > depth:
        return replace(record, candidates=record.candidates[:depth])
    return record


def _stretch_at(place: Place, before: int, sample: InputSample, pairs: int) -> Stretch:
    """Records from that place on; none where the source cannot go there."""
    with closing(open_source(sample.options)) as source:
        if not source.go_to(place, 0, sample.shape, None):
            return Stretch(place, pairs)
        return _measure(source, iter(source), place, before, pairs)


def _measure(
    source: Source, records: Iterator[Record], place: Place, before: int, pairs: int | None, until: float | None = None
) -> Stretch:
    """Read so many pairs, or until that time, or to the end. `before` bytes of the input lie in front."""
    found = Stretch(place, pairs or 1 << 30)
    while (pairs is None or found.pairs < pairs) and (until is None or time.monotonic() < until):
        record = next(records, None)
        if record is None:
            return replace(found, bytes=source.bytes_read - before, ended=True)
        found = _add(found, record)
    return replace(found, bytes=source.bytes_read - before)


def _count(records: Sequence[Record], place: Place, depth: int) -> Stretch:
    found = Stretch(place, depth)
    for record in records:
        found = _add(found, record)
    return found


def _add(found: Stretch, record: Record) -> Stretch:
    if isinstance(record, Rejection):
        return replace(found, records=found.records + 1, rejected=found.rejected + 1)
    sizes = [len(record.query) + len(candidate.text) for candidate in record.candidates]
    taken = sizes[: found.depth]
    return replace(
        found,
        records=found.records + 1,
        pairs=found.pairs + len(taken),
        characters=found.characters + sum(taken),
        all_characters=found.all_characters + sum(sizes),
    )
