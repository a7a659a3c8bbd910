"""Opens one input file of any format, which its first bytes, its suffix or `--input-format` show."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from rerank_cli.choices import InputFormat
from rerank_cli.display import names, shown
from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.extent import Reached, Units
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.arrays import array_rows, is_spread, object_rows
from rerank_cli.formats.reading.arrow import ArrowInput, is_arrow
from rerank_cli.formats.reading.csv_dialect import HEAD, KNOWN, LISTS, delimiter_of, is_quoted
from rerank_cli.formats.reading.csv_rows import CsvInput
from rerank_cli.formats.reading.file_rows import Input
from rerank_cli.formats.reading.lines import json_rows, lines_before
from rerank_cli.formats.reading.parquet import ParquetInput
from rerank_cli.formats.reading.parquet_columns import annotated, annotated_tsv
from rerank_cli.formats.reading.tsv import tsv_columns, tsv_rows
from rerank_cli.formats.shapes.fields import FIRST_SCORE, Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Rejection, Shape
from rerank_cli.storage.compression import suffix_of
from rerank_cli.storage.opening import BOM, PARQUET_MAGIC, Opened, is_file, open_bytes

TABLES = {InputFormat.PARQUET: "Parquet", InputFormat.ARROW: "Arrow", InputFormat.CSV: "CSV"}
"""Formats with a fixed set of columns in every file."""


class TableInput(Protocol):
    """An open file with columns."""

    name: str

    @property
    def schema(self) -> Any: ...
    def units(self) -> Units: ...
    def rows(self, start: Place) -> Iterator[Row | Rejection]: ...
    def taken(self) -> int: ...
    def close(self) -> None: ...


def format_of(opened: Opened, known: Collection[str] = KNOWN) -> InputFormat | None:
    """The format of an input that begins with `opened`, by its content, else its suffix, else its header.

    `known` are column names. None for text that shows no format: its first line is neither JSON nor a header.
    """
    head = opened.content.peek(HEAD)
    if b"\n" not in head and opened.compression and is_file(opened.path):  # its first block may be short
        with open_bytes(opened.path).content as content, suppress(InputError):
            head = content.readline(HEAD) + content.peek(1)
    if head.startswith(PARQUET_MAGIC):
        return InputFormat.PARQUET
    if is_arrow(head):
        return InputFormat.ARROW
    text = head.removeprefix(BOM)
    begin = text.lstrip()
    if begin.startswith(b"["):
        return InputFormat.JSON
    if begin.startswith(b"{"):
        return InputFormat.JSON if is_spread(begin) else InputFormat.JSONL
    suffix = suffix_of(opened.path)
    if suffix == ".csv":
        return InputFormat.CSV
    delimiter = delimiter_of(begin.partition(b"\n")[0].decode("utf-8", "replace"), known)
    if delimiter not in (None, "\t"):
        return InputFormat.CSV
    if suffix == ".tsv" or delimiter:
        return InputFormat.CSV if is_quoted(text) else InputFormat.TSV
    return None


def open_table(opened: Opened, format: InputFormat, start: Place | None = None, **options: Any) -> TableInput:
    """Open a file of a format in `TABLES`, to be read from `start` on; `options` are those of CSV."""
    if format is InputFormat.CSV:
        return CsvInput(opened, start or Place(), **options)
    return ArrowInput(opened) if format is InputFormat.ARROW else ParquetInput(opened)


def table_input(kind: str, source: TableInput, start: Place, columns: ArrowSchema | None = None) -> Input:
    """An Input of the rows of a table from `start` on, which is where a CSV file was opened."""
    if isinstance(source, CsvInput):
        return replace(text_input(kind, source.opened, source.rows(start)), columns=columns)
    stream = source.opened.counted if isinstance(source, ArrowInput) and not is_file(source.opened.path) else None
    return Input(kind, source.rows(start), source.taken, source.close, source.units, columns, stream)


def check_kinds(options: InputOptions, fields: Names) -> None:
    """Raise InputError if only some of the files are tables of one format, or if their columns differ."""
    if len(options.paths) < 2:
        return
    formats = {path: _format_at(path, options, fields) if is_file(path) else None for path in options.paths}
    table = next((format for format in formats.values() if format in TABLES), None)
    if table is None:
        return
    first: ArrowSchema | None = None
    for path, format in formats.items():
        if format is not table:
            raise InputError(f"{path}: is not {TABLES[table]} (other inputs are). Fix: one kind of file per run")
        source = _open_columns(open_bytes(path), table, fields, Place())
        schema = source.schema.remove_metadata()
        source.close()
        if first is not None and schema != first:
            kinds = [names(f"{field.name} {field.type}" for field in one) for one in (schema, first)]
            expected = f"got {kinds[0]}; expected those of {shown(options.paths[0], 200)}: {kinds[1]}"
            raise InputError(f"{shown(path, 200)}: its columns or their types differ ({expected})")
        first = schema


def open_input(path: str, options: InputOptions, fields: Names, start: Place) -> Input:
    """Open a file at `start`. Raises InputError, and UsageError for a shape that tab-separated lines cannot have."""
    opened = open_bytes(path)
    try:
        format = _format(opened, options, fields)
        if format in TABLES:
            return _columns_input(opened, format, options.shape, fields, start)
        if format is InputFormat.TSV and options.shape not in (None, Shape.PAIRS):
            raise UsageError(f"{opened.name}: tab-separated files hold pairs only (got --shape {options.shape})")
        if format is InputFormat.JSON:
            return json_input(opened, start)
        columns = tsv_columns(opened, fields) if format is InputFormat.TSV else ()
        opened = opened.at(start.offset)
        if format is InputFormat.TSV:
            rows = tsv_rows(opened.content, opened.name, fields, start, columns if start.rows else None)
            return replace(text_input("TSV", opened, rows), columns=annotated_tsv(columns, fields, opened.name))
        found = text_input("JSON lines", opened, json_rows(opened.content, opened.name, start))
        if opened.compression or not is_file(path):
            return found
        return replace(found, units=lambda: Units(opened.length(), reach=partial(_reached, path)))
    except BaseException:
        opened.content.close()
        raise


def _reached(path: str, offset: int) -> Reached:
    with open_bytes(path).content as content:
        return lines_before(content, offset)


def json_input(opened: Opened, start: Place, kind: str = "JSON") -> Input:
    """Records of a JSON array, or objects over several lines each."""
    is_array = _begin(opened).startswith(b"[")
    opened = opened.at(start.offset)
    rows = (array_rows if is_array else object_rows)(opened.content, opened.name, start)
    return text_input(f"{kind} array" if is_array else f"{kind} objects", opened, rows)


def _columns_input(opened: Opened, format: InputFormat, shape: Shape | None, fields: Names, start: Place) -> Input:
    source = _open_columns(opened, format, fields, start)
    try:
        return table_input(TABLES[format], source, start, annotated(source.schema, shape, fields, source.name))
    except BaseException:
        source.close()
        raise


def _open_columns(opened: Opened, format: InputFormat, fields: Names, start: Place) -> TableInput:
    texts, numbers = (*fields.query, *fields.text), (*FIRST_SCORE, *fields.score)
    lists = (*LISTS, *fields.documents)
    return open_table(opened, format, start, known=_known(fields), texts=texts, numbers=numbers, lists=lists)


def _format(opened: Opened, options: InputOptions, fields: Names) -> InputFormat:
    """The given format, else the one that shows; TSV with `--shape pairs`. InputError for text that shows none."""
    given = options.format if options.format is not InputFormat.AUTO else format_of(opened, _known(fields))
    begin = _begin(opened)
    if given or not begin:
        return given or InputFormat.JSONL
    if options.shape is Shape.PAIRS:
        return InputFormat.TSV
    lines = begin.splitlines()
    if any(line.lstrip(BOM + b" \t").startswith((b"{", b"[")) for line in lines):
        return InputFormat.JSONL
    if b"\0" in begin[:1000]:
        fix = "Fix: write its rows as JSON lines, CSV, Parquet or Arrow"
        raise InputError(f"{opened.name}: is binary data of an unknown kind (got {begin[:8].hex(' ')}). {fix}")
    cells = lines[0].split()
    is_run = len(cells) == 6 and cells[3].isdigit()
    fix = "--run, for a run of ids" if is_run else "--input-format, or a header of column names"
    got = f"its first line is {shown(repr(lines[0][:200].decode('utf-8', 'replace')), 60)}"
    raise InputError(f"{opened.name}:1: is neither JSON nor a table with a header ({got}). Fix: {fix}")


def _format_at(path: str, options: InputOptions, fields: Names) -> InputFormat:
    opened = open_bytes(path)
    with opened.content:
        return _format(opened, options, fields)


def _known(fields: Names) -> frozenset[str]:
    return KNOWN.union(*(getattr(fields, part) for part in fields.mapped))


def _begin(opened: Opened) -> bytes:
    """The first bytes of text, without byte order mark and white space."""
    return opened.content.peek(HEAD).removeprefix(BOM).lstrip()


def text_input(kind: str, opened: Opened, rows: Iterator[Row | Rejection]) -> Input:
    """An Input of text, which counts the bytes on disk of the rows so far."""
    kind = f"{kind} ({opened.compression})" if opened.compression else kind
    stream = None if is_file(opened.path) else opened.counted
    return Input(kind, rows, lambda: opened.taken, opened.content.close, lambda: Units(opened.length()), stream=stream)
