"""Runs and judgements as tables: one object or one list of columns a row, whatever they are written in.

Parquet, JSON lines, one JSON object over many lines, TSV with a header of known names, and columns without one; also
compressed. A row that cannot be read is an InputError: judgements with holes would give wrong figures.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import orjson

from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.lines import decode_line, numbered_lines
from rerank_cli.formats.reading.parquet import ParquetInput
from rerank_cli.formats.reading.tsv import is_header, tsv_rows
from rerank_cli.formats.shapes.fields import Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BOM, PARQUET_MAGIC, Opened, open_bytes, stamp_of


class Table(NamedTuple):
    """`rows` hold an object each, or a list of strings where `columns` is true; to be closed."""

    name: str
    columns: bool
    rows: Iterator[tuple[Position, Json]]
    close: Callable[[], None]


def open_table(path: str) -> Table:
    """Recognise a table by its first bytes; it is read while its rows are taken. InputError if it is none."""
    stamp_of(path)
    opened = open_bytes(path)
    close = opened.content.close
    try:
        head = opened.content.peek().removeprefix(BOM).lstrip()
        if head.startswith(PARQUET_MAGIC):
            source = ParquetInput(opened)
            return Table(opened.name, False, map(_usable, source.rows(Place())), source.close)
        if head.startswith(b"{"):
            return Table(opened.name, False, _json(opened.content, opened.name), close)
        if not head or head.startswith(b"["):
            what = "is one JSON array" if head else "is empty"
            raise InputError(f"{opened.name}: {what} (expected rows of columns or JSON)")
        return _text(opened)
    except BaseException:
        close()
        raise


def _text(opened: Opened) -> Table:
    """Rows of columns, which the first line may name."""
    lines = numbered_lines(opened.content, opened.name)
    first = next(lines, None)
    close = opened.content.close
    if first is not None and not isinstance(first, Rejection) and is_header(first[1]):
        columns = tuple(first[1].decode("utf-8", "replace").rstrip("\r\n").split("\t"))
        behind = Place(0, first[0].line, len(first[1]))
        rows = tsv_rows(opened.content, opened.name, Names(), behind, columns)
        return Table(opened.name, False, map(_usable, rows), close)
    return Table(opened.name, True, _columns(chain([first] if first else [], lines)), close)


def _json(content: io.BufferedReader, name: str) -> Iterator[tuple[Position, Json]]:
    """Lines of JSON; where the first one is not whole, the file is taken as one value."""
    for item in numbered_lines(content, name):
        if isinstance(item, Rejection):
            raise InputError(str(item))
        position, line = item
        try:
            yield position, decode_line(line)
        except BadRecord as error:
            if position.line > 1:
                raise InputError(f"{position}: {error}") from None
            yield position, _whole(line + content.read(), f"{position}: {error}")


def _whole(data: bytes, complaint: str) -> Json:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise InputError(complaint) from None


def _columns(lines: Iterator[tuple[Position, bytes] | Rejection]) -> Iterator[tuple[Position, Json]]:
    for item in lines:
        if isinstance(item, Rejection):
            raise InputError(str(item))
        position, line = item
        try:
            yield position, line.decode("utf-8").split()
        except UnicodeDecodeError:
            raise InputError(f"{position}: the line is not valid UTF-8") from None


def _usable(row: Row | Rejection) -> tuple[Position, Json]:
    if isinstance(row, Rejection):
        raise InputError(str(row))
    return row.position, row.value


def a_mapping(value: Json) -> bool:
    """Is it an object of objects of numbers, as runs and judgements are kept in JSON: query, document, number?"""
    inner = value.values() if isinstance(value, dict) and value else [None]
    return all(
        isinstance(found, dict) and all(type(number) in (int, float) for number in found.values()) for found in inner
    )
