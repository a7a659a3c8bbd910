"""Rows of several files, in the order of the files, from any place on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.extent import Extent, FileExtent, Units
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Rejection
from rerank_cli.storage.opening import Counted, Stamp, WhenIdle
from rerank_cli.storage.paths import STREAM


@dataclass(frozen=True, slots=True)
class Input:
    """An open file. `taken` returns how many of its bytes on disk have been read; `stream` is a pipe that is read.

    `units` returns what places in the file count; it may read the file to its end, instead of `rows`.
    """

    kind: str
    rows: Iterator[Row | Rejection]
    taken: Callable[[], int]
    close: Callable[[], None]
    units: Callable[[], Units]
    columns: ArrowSchema | None = None
    stream: Counted | None = None


Opener = Callable[[str, Place], Input]


class FileRows:
    """`kind` and `columns` are those of the first file that was opened. `total_bytes` is the size of all on disk.

    `first` is the number of the first of these files in a Place: the files before it hold no rows (queries, corpus).
    """

    def __init__(self, paths: Sequence[str], stamps: Sequence[Stamp | None], opener: Opener, first: int = 0) -> None:
        self.kind = ""
        self.columns: ArrowSchema | None = None
        self._paths = paths
        self._stamps = stamps
        self._open = opener
        self._first = first
        self._input: Input | None = None
        self._when_idle: WhenIdle | None = None
        self._taken_before = 0
        known = [stamp.size for stamp in stamps if stamp]
        self.total_bytes = sum(known) if len(known) == len(stamps) else None

    @property
    def taken(self) -> int:
        """Bytes on disk read for the rows so far."""
        return self._taken_before + (self._input.taken() if self._input else 0)

    def rows(self, start: Place | None = None) -> Iterator[Row | Rejection]:
        """All rows from `start` on. The file that was open is closed."""
        self.close()
        start = start or Place(self._first)
        self._taken_before = sum(stamp.size for stamp in self._stamps[: start.file - self._first] if stamp)
        return self._rows(start)

    def when_idle(self, act: WhenIdle) -> None:
        """Set what the reading thread calls whenever a stream has no new bytes for a moment, see `Counted`."""
        self._when_idle = act
        if self._input and self._input.stream:
            self._input.stream.when_idle = act

    def is_idle(self) -> bool:
        """Whether the open file is a stream that has no new bytes for a moment."""
        return bool(self._input and self._input.stream and self._input.stream.is_idle())

    def extent(self) -> Extent:
        """The extent of all files, which are opened for it. Compressed text is read to its end. Raises InputError."""
        return Extent([self._extent(number, path) for number, path in enumerate(self._paths, self._first)])

    def _extent(self, number: int, path: str) -> FileExtent:
        stamp = self._stamps[number - self._first]
        found = self._open(path, Place(number))
        try:
            return FileExtent(number, stamp.size if stamp else 0, found.units())
        finally:
            found.close()

    def close(self) -> None:
        """Close the open file, if any. May be called more than once."""
        if self._input:
            self._taken_before += self._input.taken()
            self._input.close()
            self._input = None

    def _rows(self, start: Place) -> Iterator[Row | Rejection]:
        """Raises InputError if a file ends before the size that its stamp has: it was truncated meanwhile."""
        for number, (path, stamp) in enumerate(zip(self._paths, self._stamps, strict=True), self._first):
            if number < start.file:
                continue
            if stamp is None and self._when_idle:
                self._when_idle()  # opening a pipe waits for its writer
            self._input = found = self._open(path, start if number == start.file else Place(number))
            if found.stream:
                found.stream.when_idle = self._when_idle
            self.kind = self.kind or found.kind
            if found.columns is not None:
                self.columns = self.columns or found.columns
            yield from found.rows
            if stamp and (taken := found.taken()) < stamp.size:
                got = f"got {taken:,} bytes, expected {stamp.size:,} as before"
                raise InputError(f"{shown(path, 300)}: was cut while it was read ({got}). Fix: restore it")
            self.close()


def names_of(paths: Sequence[str]) -> list[str]:
    """Paths as shown in messages."""
    return ["<stdin>" if path == STREAM else shown(path, 4096) for path in paths]
