"""Runs and relevance judgements as tables: one object or one list of columns per row, in any file format.

Parquet, JSON lines, one JSON object over many lines, TSV with a header of known names, and columns without a header;
also compressed. A row that cannot be read is an InputError: figures from incomplete judgements would be wrong.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import NamedTuple, TypeVar

import orjson

from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.lines import decode_line, numbered_lines, utf8_text
from rerank_cli.formats.reading.parquet import ParquetInput
from rerank_cli.formats.reading.tsv import is_header, tsv_rows
from rerank_cli.formats.shapes.fields import Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BOM, PARQUET_MAGIC, open_bytes, stamp_of

T = TypeVar("T")


class Table(NamedTuple):
    """Rows with their positions: objects, or lists of strings if `columns`. The caller closes the table."""

    name: str
    columns: bool
    rows: Iterator[tuple[Position, Json]]
    close: Callable[[], None]


def open_table(path: str) -> Table:
    """Open a table whose format is detected from its first bytes. Rows are read lazily. Raises InputError."""
    stamp_of(path)
    opened = open_bytes(path)
    content, name, close = opened.content, opened.name, opened.content.close
    try:
        head = content.peek().removeprefix(BOM).lstrip()
        if head.startswith(PARQUET_MAGIC):
            source = ParquetInput(opened)
            return Table(name, False, _values(source.rows(Place())), source.close)
        lines = _checked(numbered_lines(content, name))
        if head.startswith(b"{"):
            return Table(name, False, _json(content, lines), close)
        if not head or head.startswith(b"["):
            what = "is one JSON array" if head else "is empty"
            raise InputError(f"{name}: {what} (expected rows of columns or JSON)")
        first = next(lines, None)
        if first and is_header(first[1]):
            columns = tuple(first[1].decode("utf-8", "replace").rstrip("\r\n").split("\t"))
            after = Place(0, first[0].line, len(first[1]))
            return Table(name, False, _values(tsv_rows(content, name, Names(), after, columns)), close)
        return Table(name, True, _columns(chain([first] if first else [], lines)), close)
    except BaseException:
        close()
        raise


def _checked(items: Iterable[T | Rejection]) -> Iterator[T]:
    for item in items:
        if isinstance(item, Rejection):
            raise InputError(str(item))
        yield item


def _values(rows: Iterator[Row | Rejection]) -> Iterator[tuple[Position, Json]]:
    return ((row.position, row.value) for row in _checked(rows))


def _json(content: io.BufferedReader, lines: Iterator[tuple[Position, bytes]]) -> Iterator[tuple[Position, Json]]:
    """Lines of JSON. If the first line is not valid alone, the whole file is read as one value."""
    for position, line in lines:
        try:
            yield position, decode_line(line)
        except BadRecord as error:
            if position.line == 1:
                with suppress(orjson.JSONDecodeError):
                    yield position, orjson.loads(line + content.read())
                    return
            raise InputError(f"{position}: {error}") from None


def _columns(lines: Iterator[tuple[Position, bytes]]) -> Iterator[tuple[Position, Json]]:
    for position, line in lines:
        try:
            yield position, utf8_text(line).split()
        except BadRecord as error:
            raise InputError(f"{position}: {error}") from None


def a_mapping(value: Json) -> bool:
    """Whether it is an object {query: {document: number}}, as runs and judgements are written in JSON."""
    inner = value.values() if isinstance(value, dict) and value else [None]
    return all(isinstance(found, dict) and {*map(type, found.values())} <= {int, float} for found in inner)
