"""Groups of files that hold their texts: JSON lines, arrays, CSV, TSV, Parquet and Arrow, also compressed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from enum import Enum

from rerank_cli.choices import InputFormat
from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.file_rows import Input
from rerank_cli.formats.reading.inputs import TABLES, format_of, json_input, open_table, table_input, text_input
from rerank_cli.formats.reading.lines import decode_line, json_rows
from rerank_cli.formats.reading.sorting import SortedRows
from rerank_cli.formats.reading.tsv import tsv_rows
from rerank_cli.formats.shapes.detection import whole_table
from rerank_cli.formats.shapes.fields import Names
from rerank_cli.formats.shapes.groups import GroupFields, TrainingGroup, group_from, joined
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Rejection
from rerank_cli.storage.opening import BLOCK, BOM, is_local, open_bytes, stamp_of
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.data.index import GroupIndex
from rerank_cli.training.data.rules import GroupCounts, GroupRules, Reject

Rows = Generator[Row | Rejection]


class FileGroups:
    """Groups of files, see `store.GroupStore`. The files are read once to find the groups and what is wrong with them.

    Adjacent rows of one query are one group; with `sort` rows may be in any order.
    """

    def __init__(
        self, options: InputOptions, fields: GroupFields, rules: GroupRules, folder: str | None, reject: Reject
    ) -> None:
        """Bad records are passed to `reject`. Raises InputError for a file that cannot be read."""
        self.index = GroupIndex(options.paths, folder)
        self._fields = fields
        self._rules = rules
        self._reject = reject
        self._apart = not options.sort
        self.counts = GroupCounts()
        files = (_rows(path, options.format, Place(number), fields) for number, path in enumerate(options.paths))
        try:
            if options.sort:
                self._add(SortedRows(len(options.paths)).rows(_all(files), self._key_of), Layout.NONE)
            else:
                for layout, found in files:
                    with closing(found) as rows:
                        self._add(rows, layout)
            self.index.finish()
        except BaseException:
            self.index.close()
            raise

    def group(self, place: int) -> TrainingGroup:
        """Raises InputError if the file was changed meanwhile."""
        try:
            return self._rules.checked(joined(list(self._parts(self.index.read(place)))))
        except (BadRecord, IndexError):
            where = self.index.where(place)
            raise InputError(f"{where}: was changed while it was read. Fix: run the same command again") from None

    def texts(self, drawn: Sequence[DrawnGroup]) -> list[DrawnGroup]:
        """The groups have their texts already."""
        return list(drawn)

    def close(self) -> None:
        self.index.close()

    def _parts(self, data: bytes) -> Iterator[TrainingGroup]:
        """The record, or the good rows among several lines."""
        try:
            values: Iterable[Json] = [decode_line(data)]
        except BadRecord:
            values = _good(data.splitlines(keepends=True))
        for value in values:
            try:
                yield group_from(value, self._fields)
            except BadRecord:
                continue

    def _key_of(self, row: Row) -> object:
        try:
            group = group_from(row.value, self._fields)
        except BadRecord:
            return None
        return group.key if group.is_row else None

    def _add(self, rows: Iterator[Row | Rejection], layout: Layout) -> None:
        """Add the groups in rows."""
        parts: list[tuple[Row, TrainingGroup]] = []
        for row in rows:
            if isinstance(row, Rejection):
                self._reject(row)
                continue
            try:
                group = group_from(row.value, self._fields)
            except BadRecord as error:
                self._reject(Rejection(row.position, error.code, str(error), raw=row.excerpt()))
                continue
            if parts and not (group.is_row and parts[0][1].is_row and group.key == parts[0][1].key):
                self._finish(parts, layout)
                parts = []
            parts.append((row, group))
        if parts:
            self._finish(parts, layout)

    def _finish(self, parts: Sequence[tuple[Row, TrainingGroup]], layout: Layout) -> None:
        row, last = parts[0][0], parts[-1][0]
        try:
            group = self._rules.checked(joined([group for _, group in parts]))
        except BadRecord as error:
            apart = parts[0][1].is_row and error.code == "no_positive" and self._apart
            fix = ". Fix: --sort, if rows of one query are apart, or --loss bce for labelled pairs" if apart else ""
            self._reject(Rejection(row.position, error.code, f"{error}{fix}", parts[0][1].id, row.excerpt()))
            return
        size = self._rules.size(len(group.query), map(len, group.passages))
        begin, end = row.position.place, last.position.place
        addressed = layout is Layout.LINES or (layout is Layout.VALUES and len(parts) == 1)
        if addressed and begin and end and last.raw is not None:
            # A byte order mark is not in `raw`, but the first record's range begins before it.
            mark = len(BOM) if end.offset == 0 and self.index.begins_with(begin.file, BOM) else 0
            self.index.add(begin.file, begin.offset, end.offset + mark + len(last.raw) - begin.offset, size)
        else:
            self.index.add_copy(group.as_record(), size)
        self.counts.add(group, self._rules)


class Layout(Enum):
    """Which rows have byte ranges that can be read again: adjacent rows as one range, single rows, or none."""

    LINES = 1
    VALUES = 2
    NONE = 3


def _good(lines: Sequence[bytes]) -> Iterator[Json]:
    """The values of those lines that can be decoded."""
    for line in lines:
        with suppress(BadRecord):
            if not line.isspace():
                yield decode_line(line)


def _all(files: Iterable[tuple[Layout, Rows]]) -> Rows:
    """The rows of all files."""
    for _, found in files:
        with closing(found) as rows:
            yield from rows


def _rows(path: str, given: InputFormat, start: Place, fields: GroupFields) -> tuple[Layout, Rows]:
    """The rows of a file. Raises InputError for a format that is not known, and for a stream."""
    if stamp_of(path) is None:
        raise InputError(f"{shown(path, 300)}: cannot be read more than once (expected a file). Fix: save it to a file")
    opened = open_bytes(path)
    try:
        format = given if given is not InputFormat.AUTO else format_of(opened, fields.known)
        copied = opened.compression is not None or not is_local(path)
        if format in TABLES:
            texts = (*fields.query, *fields.passage)
            table = open_table(opened, format, start, known=fields.known, texts=texts)
            return Layout.NONE, _closing(table_input("", table, start))
        if format is InputFormat.JSON:
            return Layout.NONE if copied else Layout.VALUES, _closing(json_input(opened, start))
        if format is InputFormat.TSV:
            columns = tuple(opened.content.readline(BLOCK).decode("utf-8", "replace").rstrip("\r\n").split("\t"))
            rows = tsv_rows(opened.content, opened.name, Names(), replace(start, rows=1), columns)
            return Layout.NONE, _closing(text_input("", opened, rows))
        if format is None and (begin := opened.content.peek(BLOCK).removeprefix(BOM).lstrip()):
            got = f"its first line is {shown(repr(begin.splitlines()[0][:200].decode('utf-8', 'replace')), 60)}"
            fix = "Fix: --input-format, or a header of column names like query, passage, label"
            raise InputError(f"{opened.name}:1: is neither JSON nor a table of training data ({got}). {fix}")
        rows = json_rows(opened.content, opened.name, start)
        return Layout.NONE if copied else Layout.LINES, _closing(text_input("", opened, rows))
    except BaseException:
        opened.content.close()
        raise


def _closing(found: Input) -> Rows:
    """The rows of an input, which is closed after the last. Raises InputError for a whole table in one object."""
    with closing(found):
        for row in found.rows:
            if isinstance(row, Row) and (orient := whole_table(row.value)):
                what = f"is a whole table of pandas in one object (orient='{orient}')"
                fix = "Fix: write it with to_json(FILE, orient='records', lines=True)"
                raise InputError(f"{row.position}: {what}. {fix}")
            yield row
