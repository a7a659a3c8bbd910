"""A sample of an input: stretches of records all over it if the source can seek, its beginning otherwise.

Stretches are stored as offsets and read again for every pass, so that a pass reads as a run does. The characters of
pairs (query and text of each candidate) relate the sample to the input: characters per byte, tokens per character.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import reduce

from rerank_cli.formats import InputOptions, Source, open_source
from rerank_cli.formats.reading.sampling import starts
from rerank_cli.records import Place, Record, Rejection, Request, Shape

STRETCHES = 8


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive records from `place` on, of `bytes` on disk; the input ends after them if `ended`.

    At most `depth` pairs of each are in the sample: `pairs` with `characters`; `all_characters` are those of all pairs.
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
    """Stretches of an input of `total_bytes`, None if unknown.

    `held` are the records of an input that can be read only once. `beyond` was read after the sample to measure the
    amount of text per byte.
    """

    options: InputOptions
    shape: Shape | None
    total_bytes: int | None
    stretches: Sequence[Stretch]
    held: Sequence[Record] = ()
    beyond: Stretch | None = None

    @property
    def whole(self) -> bool:
        """Whether the sample is the whole input."""
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
        """The stretches from which the amount of text per byte is estimated."""
        return [*self.stretches, self.beyond] if self.beyond else self.stretches

    def read(self) -> Iterator[Record]:
        """The records, read from disk again unless they are held."""
        if self.held:
            yield from self.held
            return
        for stretch in self.stretches:
            with closing(open_source(self.options)) as source:
                source.go_to(stretch.place, 0, self.shape, None)
                for record in itertools.islice(source, stretch.records):
                    yield _shortened(record, stretch.depth)


def take_sample(
    source: Source, records: Iterator[Record], options: InputOptions, pairs: int, patience: float
) -> InputSample:
    """About `pairs` pairs of `source`; if only from the beginning, reading continues for `patience` seconds."""
    if source.total_bytes is None:
        held = list(take_pairs(records, pairs))
        stretch = reduce(_add, held, Stretch(Place(), pairs))
        return InputSample(options, source.shape, None, [replace(stretch, ended=next(records, None) is None)], held)
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
    """Records with at most `pairs` candidates each, until they have `pairs` pairs together."""
    taken = 0
    while taken < pairs and (record := next(records, None)) is not None:
        record = _shortened(record, pairs)
        taken += len(record.candidates) if isinstance(record, Request) else 0
        yield record


def _shortened(record: Record, depth: int) -> Record:
    """A request with only its first `depth` candidates."""
    if isinstance(record, Request) and len(record.candidates) > depth:
        return replace(record, candidates=record.candidates[:depth])
    return record


def _stretch_at(place: Place, before: int, sample: InputSample, pairs: int) -> Stretch:
    """Records from `place` on; an empty stretch if the source cannot seek there."""
    with closing(open_source(sample.options)) as source:
        if not source.go_to(place, 0, sample.shape, None):
            return Stretch(place, pairs)
        return _measure(source, iter(source), place, before, pairs)


def _measure(
    source: Source, records: Iterator[Record], place: Place, before: int, pairs: int | None, until: float | None = None
) -> Stretch:
    """Read `pairs` pairs, or until a time, or to the end. `before` is the number of bytes before the stretch."""
    found = Stretch(place, pairs or 1 << 30)
    while (pairs is None or found.pairs < pairs) and (until is None or time.monotonic() < until):
        record = next(records, None)
        if record is None:
            found = replace(found, ended=True)
            break
        found = _add(found, record)
    return replace(found, bytes=source.bytes_read - before)


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
