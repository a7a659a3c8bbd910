"""Rows of several files, one file after the other, from any place on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Rejection
from rerank_cli.storage.opening import Stamp
from rerank_cli.storage.paths import STREAM


@dataclass(frozen=True, slots=True)
class Input:
    """An open file. `taken` says how many of its bytes on disk were read."""

    kind: str
    rows: Iterator[Row | Rejection]
    taken: Callable[[], int]
    close: Callable[[], None]
    columns: ArrowSchema | None = None


Opener = Callable[[str, Place], Input]


class FileRows:
    """`kind` and `columns` are those of the first file that was opened.

    In places the files are numbered from `first` on: those before it are no files of rows.
    """

    def __init__(self, paths: Sequence[str], stamps: Sequence[Stamp | None], opener: Opener, first: int = 0) -> None:
        self.kind = ""
        self.columns: ArrowSchema | None = None
        self._paths = paths
        self._stamps = stamps
        self._open = opener
        self._first = first
        self._input: Input | None = None
        self._taken_before = 0

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all files on disk, None if one of them has no size."""
        known = [stamp.size for stamp in self._stamps if stamp]
        return sum(known) if len(known) == len(self._stamps) else None

    @property
    def taken(self) -> int:
        """Bytes on disk behind the rows so far."""
        return self._taken_before + (self._input.taken() if self._input else 0)

    def rows(self, start: Place | None = None) -> Iterator[Row | Rejection]:
        """All rows from `start` on. What was read before is closed."""
        self.close()
        start = start or Place(self._first)
        before = self._stamps[: start.file - self._first]
        self._taken_before = sum(stamp.size for stamp in before if stamp)
        return self._rows(start)

    def close(self) -> None:
        """Close what is open; to be called from any state, also more than once."""
        if self._input:
            self._taken_before += self._input.taken()
            self._input.close()
            self._input = None

    def _rows(self, start: Place) -> Iterator[Row | Rejection]:
        for number, path in enumerate(self._paths, self._first):
            if number < start.file:
                continue
            self._input = self._open(path, start if number == start.file else Place(number))
            self.kind = self.kind or self._input.kind
            if self._input.columns is not None:
                self.columns = self.columns or self._input.columns
            yield from self._input.rows
            self._check_whole(path, self._stamps[number - self._first])
            self.close()

    def _check_whole(self, path: str, stamp: Stamp | None) -> None:
        """InputError if a file ended before the size it had in the beginning: somebody cut it."""
        taken = self._input.taken() if self._input else 0
        if stamp and taken < stamp.size:
            got = f"got {taken:,} bytes, expected the {stamp.size:,} it had before"
            raise InputError(f"{shown(path, 300)}: was cut while it was read ({got}). Fix: restore it")


def names_of(paths: Sequence[str]) -> list[str]:
    """Paths as messages call them."""
    return ["<stdin>" if path == STREAM else shown(path, 4096) for path in paths]
