"""A source of records read from rows of files; a `RecordReader` defines how rows become records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.extent import Extent
from rerank_cli.formats.reading.file_rows import FileRows
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.reading.sorting import SortedRows
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Record, Rejection, Shape
from rerank_cli.storage.files import Committed
from rerank_cli.storage.opening import Stamp


class RecordReader(Protocol):
    """Rows to records. With `grouped`, a record consists of several rows, which must be adjacent.

    With `remembers`, records depend on the queries of all rows before, also if the rows are sorted.
    """

    shape: Shape | None
    remembers: bool

    @property
    def grouped(self) -> bool: ...
    @property
    def one_by_one(self) -> bool:
        """Whether every row is one record, whatever the rows before it are."""

    def describe(self, kind: str, how: str) -> str:
        """The input in one phrase, given the kind of the files and how they are read."""

    def look(self, rows: Iterator[Row | Rejection]) -> Iterator[Row | Rejection]:
        """Read the first rows to find out what they are; returns all rows."""

    def key_of(self, row: Row) -> object:
        """The sort key of a row, None for a row without one."""

    def records(self, rows: Iterator[Row | Rejection], seen: QueryLog, first: int) -> Iterator[Record]:
        """The records in rows, numbered from `first`; `seen` holds the queries of earlier records."""

    def close(self) -> None: ...


class RowSource:
    """The `Source` of rows in files. `stamps` are those of all files that are read, the files of rows last."""

    def __init__(self, files: FileRows, reader: RecordReader, stamps: Sequence[Stamp | None], sort: bool) -> None:
        """Opens the first file and reads its first rows. Raises InputError."""
        self.stamps = stamps
        self.total_bytes = files.total_bytes
        self._files = files
        self._reader = reader
        self._seen = QueryLog()
        self.sync = self._seen.sync
        self.when_idle = files.when_idle
        self._records_before = 0
        self._extent: Extent | None = None
        self._sorted = SortedRows(len(stamps) - 1) if sort else None
        try:
            self._rows = reader.look(files.rows())
        except BaseException:
            self.close()
            raise

    @property
    def shape(self) -> Shape | None:
        return self._reader.shape

    @property
    def columns(self) -> ArrowSchema | None:
        return self._files.columns

    @property
    def description(self) -> str:
        return self._reader.describe(self._files.kind, ", sorted" if self._sorted else "")

    @property
    def bytes_read(self) -> int:
        return self._sorted.share_of(self._files.taken) if self._sorted else self._files.taken

    def go_to(self, start: Place, records: int, shape: Shape | None, kept: Committed | None) -> bool:
        if None in self.stamps:
            return False
        before, self._reader.shape = self._reader.shape, shape
        needed = self._reader.remembers or (self._reader.grouped and not self._sorted)
        if needed and not (kept and self._seen.restore(kept)):
            self._reader.shape = before
            return False
        self._records_before = records
        self._rows = self._files.rows(None if self._sorted else start)
        if self._sorted:
            self._sorted.begin = start.rows
        return True

    def extent(self) -> Extent:
        if self._sorted:
            return self._sorted.extent(self.total_bytes or 0)
        self._extent = self._extent or self._files.extent()
        return self._extent

    def go_near(self, size: int) -> int:
        found = self.extent().section_before(size) if self._reader.one_by_one and not self._sorted else None
        if found is None:
            return 0
        place, records = found
        return records if self.go_to(place, records, self.shape, None) else 0

    def keep_memory_in(self, path: Path) -> None:
        if self._reader.remembers or not self._sorted:
            self._seen.keep_in(path)

    def __iter__(self) -> Iterator[Record]:
        rows = self._sorted.rows(self._rows, self._reader.key_of) if self._sorted else self._rows
        return self._reader.records(rows, self._seen, self._records_before + 1)

    def close(self) -> None:
        """May be called in any state, also more than once."""
        self._files.close()
        self._reader.close()
