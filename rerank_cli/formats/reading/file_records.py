"""Rows of files to records: the first record that shows a shape sets it for all that follow.

Records without an id of their own get the id `rerank-<n>`, where n counts all records from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

from rerank_cli.errors import BadRecord, InputError, UsageError
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.file_rows import FileRows, names_of
from rerank_cli.formats.reading.grouping import Grouping
from rerank_cli.formats.reading.inputs import check_kinds, open_input
from rerank_cli.formats.reading.parquet_columns import shape_of
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.reading.sources import RowSource
from rerank_cli.formats.shapes.detection import detect, wrong_shape
from rerank_cli.formats.shapes.fields import TRAIN_LISTS, Id, Names, an_id, first, names_from
from rerank_cli.formats.shapes.pairs import PairReader
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Record, Rejection, Shape
from rerank_cli.storage.opening import stamp_of
from rerank_cli.storage.paths import STREAM

_LOOK_AHEAD = 100


def open_files(options: InputOptions) -> RowSource:
    """Open the inputs and read the first records. Raises InputError if a file is missing or holds no records."""
    if options.paths.count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    if options.sort:
        if options.shape not in (None, Shape.PAIRS):
            raise UsageError(f"--sort groups rows of pairs (got --shape {options.shape})")
        options = replace(options, shape=Shape.PAIRS)
    stamps = [stamp_of(path) for path in options.paths]
    check_kinds(options.paths)
    fields = names_from(options)
    files = FileRows(options.paths, stamps, lambda path, start: open_input(path, options, fields, start))
    return RowSource(files, FileRecords(options, fields, files), stamps, options.sort)


class FileRecords:
    """The `RecordReader` of files that hold their texts."""

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
        """Read rows until one shows the shape or a stream pauses. An error after good rows is raised after those."""
        seen: list[Row | Rejection] = []
        failures: list[InputError] = []
        try:
            for row in islice(rows, _LOOK_AHEAD):
                seen.append(row)
                self._find_shape(row)
                if self.shape or self._files.is_idle():
                    break
        except InputError as error:
            if not seen:
                raise
            failures.append(error)
        self._find_shape()
        return chain(seen, map(_raise, failures), rows)

    def records(self, rows: Iterator[Row | Rejection], seen: QueryLog, first: int) -> Iterator[Record]:
        for number, record in enumerate(self._records(rows, seen), first):
            yield record if record.id is not None else replace(record, id=f"rerank-{number}")

    def close(self) -> None:
        """There is nothing to close."""

    def _find_shape(self, row: Row | Rejection | None = None) -> None:
        """Set the shape, if it is unknown, from the columns of Parquet or from a row."""
        if self.shape is None and self._files.columns is not None:
            self.shape = shape_of(self._files.columns)
        if self.shape is None and isinstance(row, Row):
            self.shape = detect(row.value, self._fields)

    def _records(self, rows: Iterator[Row | Rejection], seen: QueryLog) -> Iterator[Record]:
        """Rows before the first that shows a shape are read as `rerank`."""
        for row in rows:
            if self.shape is None:
                self._find_shape(row)
            if self.shape is Shape.PAIRS:
                yield from Grouping(self._pairs, seen, names_of(self._options.paths)).records(chain([row], rows))
                return
            yield self._record(row, self.shape or Shape.RERANK)

    def _record(self, row: Row | Rejection, shape: Shape) -> Record:
        if isinstance(row, Rejection):
            return row
        error: BadRecord | None = None
        try:
            if self._options.shape is None and _ambiguous(row.value, shape):
                error = wrong_shape(row.value, shape, self._fields)
            if not error:
                return request_from(row.value, shape, self._fields, row.position)
        except BadRecord as problem:
            error = wrong_shape(row.value, shape, self._fields) or problem
        return Rejection(row.position, error.code, str(error), _id_of(row.value, self._fields), row.excerpt())


def _ambiguous(value: Json, shape: Shape) -> bool:
    """Can the record be read as `shape` and yet have another? `rerank` fields also fit three other shapes."""
    if not isinstance(value, dict):
        return False
    nested = isinstance(value.get("query"), dict)
    other = nested or "text_1" in value or all(name in value for name in TRAIN_LISTS)
    return other if shape is Shape.RERANK else shape is Shape.CANDIDATES and not nested


def _raise(error: InputError) -> Row:
    raise error


def _id_of(value: Json, fields: Names) -> Id:
    """The id of a bad record, if it has a usable one."""
    try:
        return an_id(first(value, fields.id).value, "id") if isinstance(value, dict) else None
    except BadRecord:
        return None
