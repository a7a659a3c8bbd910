"""How far a place is in the inputs: bytes on disk before it, by which the inputs are divided into parts.

The same inputs give the same numbers in every process, wherever it began to read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from rerank_cli.records import Place

SECTION_BYTES = 64 << 20
SECTION_ROWS = 1 << 16


class Reached(NamedTuple):
    """A row of a file: `rows` lines (rows of a table), `offset` bytes of content and `records` records before it."""

    rows: int
    offset: int
    records: int


def section_of(place: Place) -> tuple[int, int]:
    """File and number of the section of a place: 64 MiB of content, or 65,536 rows where places have no offset.

    No chunk spans two sections of a file, so chunks can be found from the beginning of a section on.
    """
    return place.file, place.offset // SECTION_BYTES if place.offset else place.rows // SECTION_ROWS


@dataclass(frozen=True, slots=True)
class Units:
    """What places in a file count: `count` rows in it, or bytes of its decompressed content.

    `reach` finds the first row at or after so many of them, or the end, if each row is a record and the file can be
    read from there; it may read the file up to there.
    """

    count: int
    rows: bool = False
    reach: Callable[[int], Reached] | None = None

    @property
    def section(self) -> int:
        """The size of a section."""
        return SECTION_ROWS if self.rows else SECTION_BYTES


@dataclass(frozen=True, slots=True)
class FileExtent:
    """A file of `size` bytes on disk. `number` is the file's number in a Place."""

    number: int
    size: int
    units: Units


class Extent:
    """All files of rows, in order; `total` is their size in bytes on disk."""

    def __init__(self, files: Sequence[FileExtent]) -> None:
        self._files = files
        self._numbers = [file.number for file in files]
        self._before = [0, *accumulate(file.size for file in files)]
        self.total = self._before[-1]

    def section_before(self, size: int) -> tuple[Place, int] | None:
        """The last beginning of a section with at most `size` bytes on disk before it, and the records before it.

        None if reading must start at the beginning of the first file.
        """
        at = bisect_right(self._before, min(size, self.total - 1)) - 1
        for number in range(at, -1, -1):
            file = self._files[number]
            left = file.units.count * (size - self._before[number]) // max(1, file.size)
            begin = min(left, file.units.count - 1) // file.units.section * file.units.section
            while begin > 0:
                if file.units.reach is None:
                    return None
                found = file.units.reach(begin)
                # A section without the beginning of a record says nothing of the chunks in the next file.
                if (found.rows if file.units.rows else found.offset) < file.units.count:
                    earlier = self._records_in(number)
                    place = Place(file.number, found.rows, found.offset)
                    return None if earlier is None else (place, earlier + found.records)
                begin -= file.units.section
        return None

    def _records_in(self, count: int) -> int | None:
        """The records in the first `count` files; None if one of them has to be read for that."""
        total = 0
        for file in self._files[:count]:
            if file.units.reach is None:
                return None
            total += file.units.reach(file.units.count).records
        return total

    def before(self, place: Place) -> int:
        """Bytes on disk before a place, estimated by its share of the file; `total` for a place after all rows.

        Never less than for an earlier place.
        """
        at = bisect_right(self._numbers, place.file) - 1
        if at < 0:
            return 0
        file = self._files[at]
        if file.number != place.file:
            return self.total
        done = place.rows if file.units.rows else place.offset
        return self._before[at] + file.size * min(done, file.units.count) // max(1, file.units.count)
