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
from rerank_cli.formats.shapes.detection import detect, whole_table, wrong_shape
from rerank_cli.formats.shapes.fields import TRAIN_LISTS, Id, Names, an_id, first, names_from
from rerank_cli.formats.shapes.hits import product_of, searches_in
from rerank_cli.formats.shapes.pairs import PairReader
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Record, Rejection, Request, Shape
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
    fields = names_from(options)
    check_kinds(options, fields)
    files = FileRows(options.paths, stamps, lambda path, start: open_input(path, options, fields, start))
    return RowSource(files, FileRecords(options, fields, files), stamps, options.sort)


class FileRecords:
    """The `RecordReader` of files that hold their texts."""

    remembers = False

    def __init__(self, options: InputOptions, fields: Names, files: FileRows) -> None:
        self.shape = options.shape
        self._options = options
        self._fields = fields
        self._files = files
        self._product = ""
        self._pairs = PairReader(fields)
        self.key_of = self._pairs.key_of

    @property
    def grouped(self) -> bool:
        return self.shape is Shape.PAIRS

    @property
    def one_by_one(self) -> bool:
        grouped_or_unknown = self.shape in (None, Shape.PAIRS, Shape.HITS)
        return not grouped_or_unknown and self._fields.asked is None

    def describe(self, kind: str, how: str) -> str:
        files = f"{len(self._options.paths)} files of " if len(self._options.paths) > 1 else ""
        product = f" of {self._product}" if self._product else ""
        return f"{files}{kind}, {self.shape or 'of unknown shape'}{product}{how}"

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
        for number, record in enumerate(self._records(rows, seen, first), first):
            yield record if record.id is not None else replace(record, id=f"rerank-{number}")

    def close(self) -> None:
        """There is nothing to close."""

    def _find_shape(self, row: Row | Rejection | None = None) -> None:
        """Set the shape, if it is unknown, from the columns of Parquet or from a row."""
        if self.shape is None and self._files.columns is not None:
            self.shape = shape_of(self._files.columns)
        if self.shape is None and isinstance(row, Row):
            if orient := whole_table(row.value):
                what = f"is a whole table of pandas in one object (orient='{orient}')"
                fix = "Fix: write it with to_json(FILE, orient='records', lines=True)"
                raise InputError(f"{row.position}: {what}. {fix}")
            self.shape = detect(row.value, self._fields)
            self._product = product_of(row.value) if self.shape in (Shape.HITS, Shape.PAIRS) else ""

    def _records(self, rows: Iterator[Row | Rejection], seen: QueryLog, number: int) -> Iterator[Record]:
        """Records from `number` on. Rows before the first that shows a shape are read as `rerank`."""
        for row in rows:
            if self.shape is None:
                self._find_shape(row)
            if self.shape is Shape.PAIRS:
                yield from Grouping(self._pairs, seen, names_of(self._options.paths)).records(chain([row], rows))
                return
            for record in self._records_of(row, self.shape or Shape.RERANK, number):
                yield record
                number += 1

    def _records_of(self, row: Row | Rejection, shape: Shape, number: int) -> Iterator[Record]:
        """The record of a row; several for a response to several searches, which share the row's place."""
        if isinstance(row, Rejection):
            yield row
            return
        try:
            searches = list(searches_in(row.value)) if shape is Shape.HITS else [row.value]
        except BadRecord as error:
            yield Rejection(row.position, error.code, str(error), raw=row.excerpt())
            return
        if len(searches) == 1 and searches[0] is row.value:
            yield self._record(row, shape, number)
            return
        for count, search in enumerate(searches):
            record = self._record(Row(row.position, search), shape, number + count)
            message = f"search {count}: {record.message}" if isinstance(record, Rejection) else ""
            yield replace(record, message=message) if isinstance(record, Rejection) else record

    def _record(self, row: Row, shape: Shape, number: int) -> Record:
        error: BadRecord | None = None
        try:
            if self._options.shape is None and _ambiguous(row.value, shape):
                error = wrong_shape(row.value, shape, self._fields)
            if not error:
                request = request_from(row.value, shape, self._fields, row.position)
                self._check(request, number)
                return request
        except BadRecord as problem:
            error = wrong_shape(row.value, shape, self._fields) or problem
        return Rejection(row.position, error.code, str(error), _id_of(row.value, self._fields), row.excerpt())

    def _check(self, request: Request, number: int) -> None:
        """Raise BadRecord for a query without candidates, if they are required, and for a second use of `--query`."""
        if self._fields.asked is not None and number > 1:
            what = f"--query is the query of one response (got none in record {number})"
            raise BadRecord("query_used", f"{what}. Fix: a field `query` in each record")
        if self._options.require_candidates and not request.candidates:
            raise BadRecord("no_candidates", "the query has no candidates (expected at least one)")


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
