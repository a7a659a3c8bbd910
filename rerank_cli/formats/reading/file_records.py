"""Input files to a stream of records: each file's kind is recognised, its rows are read, and become requests.

Files follow one another in the order given and keep the shape that their first record shows. Records without an id of
their own are called `rerank-<n>`, n counting all records from 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from rerank_cli.errors import BadRecord, InputError, UsageError
from rerank_cli.formats.options import STREAM, ArrowSchema, Committed, InputOptions, Source, Stamp
from rerank_cli.formats.reading.file_rows import FileRows, names_of
from rerank_cli.formats.reading.grouping import Grouping
from rerank_cli.formats.reading.inputs import Input, check_kinds, open_input
from rerank_cli.formats.reading.parquet_columns import shape_of
from rerank_cli.formats.reading.sorting import SortedRows
from rerank_cli.formats.shapes.detection import detect, other_shape
from rerank_cli.formats.shapes.fields import Names, an_id, first, names_from
from rerank_cli.formats.shapes.pairs import PairReader
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.formats.shapes.train_requests import LISTS
from rerank_cli.records import Json, Place, Record, Rejection, Request, Shape
from rerank_cli.storage.opening import stamp_of

_LOOK_AHEAD = 100


def open_source(options: InputOptions, notify: Callable[[str], None] = lambda _: None) -> Source:
    """Open the inputs and look at the first records. Raises InputError if one is missing or no file of records.

    `notify` is told of what takes long.
    """
    if not options.paths:
        raise UsageError("no input was named")
    if options.by_id:
        from rerank_cli.formats.corpus.source import open_by_id

        return open_by_id(options, options.by_id, notify)
    if options.paths.count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    if options.sort and options.shape not in (None, Shape.PAIRS):
        raise UsageError(f"--sort groups rows of pairs (got --shape {options.shape})")
    stamps = [stamp_of(path) for path in options.paths]
    check_kinds(options.paths)
    source = FileSource(options, stamps)
    try:
        source.look()
    except BaseException:
        source.close()
        raise
    return source


def input_files(options: InputOptions) -> tuple[str, ...]:
    """All files that are read, in the order of a source's stamps."""
    if not options.by_id:
        return options.paths
    from rerank_cli.formats.corpus.source import side_files

    return side_files(options.by_id) + options.paths


class FileSource:
    """The records of some files; see `Source`."""

    def __init__(self, options: InputOptions, stamps: Sequence[Stamp | None]) -> None:
        from rerank_cli.formats.reading.query_log import SeenQueries  # brings numpy, which --help does not wait for

        self.shape = Shape.PAIRS if options.sort else options.shape
        self.stamps = stamps
        self._options = options if self.shape is options.shape else replace(options, shape=self.shape)
        self._fields = names_from(options)
        self._seen = SeenQueries()
        self._files = FileRows(options.paths, stamps, self._open)
        self._records_before = 0
        self._sorted = SortedRows(len(options.paths) - 1) if options.sort else None
        self._rows = self._files.rows()

    @property
    def description(self) -> str:
        """What is read, in one phrase."""
        files = f"{len(self._options.paths)} files of " if len(self._options.paths) > 1 else ""
        return f"{files}{self._files.kind}, {self.shape or 'of unknown shape'}{', sorted' if self._sorted else ''}"

    @property
    def columns(self) -> ArrowSchema | None:
        return self._files.columns

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all inputs on disk, None if one of them has no size."""
        return self._files.total_bytes

    @property
    def bytes_read(self) -> int:
        return self._sorted.share_of(self._files.taken) if self._sorted else self._files.taken

    def look(self) -> None:
        """Open the first file and find out the shape, keeping the rows that it took."""
        seen: deque[Row | Rejection] = deque()
        failures: list[InputError] = []
        try:
            for row in islice(self._rows, _LOOK_AHEAD):
                seen.append(row)
                if self._show(row):
                    break
        except InputError as error:
            if not seen:
                raise
            failures.append(error)
        self._heed_columns()
        self._rows = chain(seen, map(_raise, failures), self._rows)

    def go_to(self, start: Place, records: int, shape: Shape | None, kept: Committed | None) -> bool:
        """See `Source`."""
        if None in self.stamps:
            return False
        if shape is Shape.PAIRS and not self._sorted and not (kept and self._seen.take_up(kept)):
            return False
        self.shape = shape
        self._records_before = records
        self._rows = self._files.rows(None if self._sorted else start)
        if self._sorted:
            self._sorted.begin_at(start)
        return True

    def keep_memory_in(self, path: Path) -> None:
        """See `Source`."""
        if not self._sorted:
            self._seen.keep_in(path)

    def sync(self) -> Committed | None:
        """See `Source`."""
        return self._seen.sync()

    def __iter__(self) -> Iterator[Record]:
        for number, record in enumerate(self._records(), self._records_before + 1):
            yield record if record.id is not None else replace(record, id=f"rerank-{number}")

    def close(self) -> None:
        """Close what is open; to be called from any state, also more than once."""
        self._files.close()

    def _open(self, path: str, start: Place) -> Input:
        return open_input(path, self._options, self._fields, start)

    def _heed_columns(self) -> None:
        """The columns of Parquet tell the shape by themselves."""
        if self.shape is None and self._files.columns is not None:
            self.shape = shape_of(self._files.columns)

    def _show(self, row: Row | Rejection) -> bool:
        """Is the shape known with this row?"""
        self._heed_columns()
        if self.shape is None and isinstance(row, Row):
            self.shape = detect(row.value, self._fields)
        return self.shape is not None

    def _records(self) -> Iterator[Record]:
        """Rows that tell no shape are judged as the commonest one; the first that does settles it for all after it."""
        for row in self._rows:
            if self._show(row):
                yield from self._shaped(chain([row], self._rows))
                return
            yield self._record(row, Shape.RERANK)

    def _shaped(self, rows: Iterator[Row | Rejection]) -> Iterator[Record]:
        if self.shape is Shape.PAIRS:
            pairs = PairReader(self._fields)
            if self._sorted:
                rows = self._sorted.rows(rows, pairs.key_of)
            yield from Grouping(pairs, self._seen, names_of(self._options.paths)).records(rows)
            return
        shape = self.shape or Shape.RERANK
        for row in rows:
            yield self._record(row, shape)

    def _record(self, row: Row | Rejection, shape: Shape) -> Record:
        if isinstance(row, Rejection):
            return row
        try:
            return self._request(row, shape)
        except BadRecord as error:
            return Rejection(row.position, error.code, str(error), _id_of(row, self._fields), row.excerpt())

    def _request(self, row: Row, shape: Shape) -> Request:
        if self._options.shape is None and _doubtful(row.value, shape):
            self._check_shape(row, shape)
        try:
            return request_from(row.value, shape, self._fields, row.position)
        except BadRecord:
            self._check_shape(row, shape)
            raise

    def _check_shape(self, row: Row, shape: Shape) -> None:
        other = other_shape(row.value, shape, self._fields)
        if other:
            message = f"the record has another shape than the file (got {other}, expected {shape}). Fix: --shape"
            raise BadRecord("wrong_shape", message)


def _doubtful(value: Json, shape: Shape) -> bool:
    """Could the record be read as `shape` and yet be of another? `rerank` knows the names of three others."""
    if not isinstance(value, dict):
        return False
    nested = isinstance(value.get("query"), dict)
    other = nested or "text_1" in value or all(name in value for name in LISTS)
    return other if shape is Shape.RERANK else shape is Shape.CANDIDATES and not nested


def _raise(error: InputError) -> Row:
    """The end of a stream that was cut off, once all before it has been taken."""
    raise error


def _id_of(row: Row, fields: Names) -> str | int | float | None:
    """The id of a bad record, if it has a usable one."""
    if not isinstance(row.value, dict):
        return None
    try:
        return an_id(first(row.value, fields.id).value, "id")
    except BadRecord:
        return None
