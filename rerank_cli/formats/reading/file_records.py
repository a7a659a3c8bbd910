"""Rows of files to records: the first record that shows a shape settles it for all that follow.

Records without an id of their own are named `rerank-<n>`, where n counts all records from 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

from rerank_cli.errors import BadRecord, InputError, UsageError
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.file_rows import FileRows, Input, names_of
from rerank_cli.formats.reading.grouping import Grouping
from rerank_cli.formats.reading.inputs import check_kinds, open_input
from rerank_cli.formats.reading.parquet_columns import shape_of
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.reading.sources import RowSource
from rerank_cli.formats.shapes.detection import detect, other_shape
from rerank_cli.formats.shapes.fields import TRAIN_LISTS, Names, an_id, first, names_from
from rerank_cli.formats.shapes.pairs import PairReader
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Record, Rejection, Request, Shape
from rerank_cli.storage.opening import stamp_of
from rerank_cli.storage.paths import STREAM

_LOOK_AHEAD = 100


def open_files(options: InputOptions) -> RowSource:
    """Open the inputs and read the first records. Raises InputError if a file is missing or holds no records."""
    if options.paths.count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    if options.sort and options.shape not in (None, Shape.PAIRS):
        raise UsageError(f"--sort groups rows of pairs (got --shape {options.shape})")
    if options.sort:
        options = replace(options, shape=Shape.PAIRS)
    stamps = [stamp_of(path) for path in options.paths]
    check_kinds(options.paths)
    fields = names_from(options)

    def opened(path: str, start: Place) -> Input:
        return open_input(path, options, fields, start)

    files = FileRows(options.paths, stamps, opened)
    return RowSource(files, FileRecords(options, fields, files), stamps, options.sort)


class FileRecords:
    """The records in rows of files, see `RecordReader`."""

    def __init__(self, options: InputOptions, fields: Names, files: FileRows) -> None:
        self.shape = options.shape
        self._options = options
        self._fields = fields
        self._files = files
        self._pairs = PairReader(fields)
        self.key_of = self._pairs.key_of

    @property
    def grouped(self) -> bool:
        return self.shape is Shape.PAIRS

    def describe(self, kind: str, how: str) -> str:
        files = f"{len(self._options.paths)} files of " if len(self._options.paths) > 1 else ""
        return f"{files}{kind}, {self.shape or 'of unknown shape'}{how}"

    def look(self, rows: Iterator[Row | Rejection]) -> Iterator[Row | Rejection]:
        """Read rows until one shows the shape; an error that follows good rows is raised behind them."""
        seen: deque[Row | Rejection] = deque()
        failures: list[InputError] = []
        try:
            for row in islice(rows, _LOOK_AHEAD):
                seen.append(row)
                if self._show(row):
                    break
        except InputError as error:
            if not seen:
                raise
            failures.append(error)
        self._heed_columns()
        return chain(seen, map(_raise, failures), rows)

    def records(self, rows: Iterator[Row | Rejection], seen: QueryLog, first: int) -> Iterator[Record]:
        """See `RecordReader`."""
        for number, record in enumerate(self._records(rows, seen), first):
            yield record if record.id is not None else replace(record, id=f"rerank-{number}")

    def close(self) -> None:
        """Nothing is open."""

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

    def _records(self, rows: Iterator[Row | Rejection], seen: QueryLog) -> Iterator[Record]:
        """Rows before the first that shows a shape are read as `rerank`."""
        for row in rows:
            if self._show(row):
                yield from self._shaped(chain([row], rows), seen)
                return
            yield self._record(row, Shape.RERANK)

    def _shaped(self, rows: Iterator[Row | Rejection], seen: QueryLog) -> Iterator[Record]:
        if self.shape is Shape.PAIRS:
            yield from Grouping(self._pairs, seen, names_of(self._options.paths)).records(rows)
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
    other = nested or "text_1" in value or all(name in value for name in TRAIN_LISTS)
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
