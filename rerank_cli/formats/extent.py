"""How far a place is in the inputs: bytes on disk before it, by which the inputs are divided into parts.

The same inputs give the same numbers in every process, wherever it began to read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rerank_cli.records import Place


@dataclass(frozen=True, slots=True)
class Units:
    """What places in a file count: `count` rows in it, or bytes of its decompressed content."""

    count: int
    rows: bool = False


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
