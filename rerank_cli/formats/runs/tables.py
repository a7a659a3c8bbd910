"""Runs and relevance judgements as tables: one object or one list of columns per row, in any file format.

Parquet, Arrow, CSV, JSON lines, one JSON array or object over many lines, TSV with a header of known names, and columns
without a header; also compressed. A row that cannot be read is an InputError: figures from incomplete judgements would
be wrong.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import NamedTuple, TypeVar

import orjson

from rerank_cli.choices import InputFormat
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.arrays import is_spread, object_rows
from rerank_cli.formats.reading.inputs import TABLES, format_of, json_input, open_table
from rerank_cli.formats.reading.lines import decode_line, numbered_lines, utf8_text
from rerank_cli.formats.reading.tsv import is_header, tsv_rows
from rerank_cli.formats.shapes.fields import FIRST_SCORE, Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BOM, open_bytes, stamp_of

T = TypeVar("T")
# Numbers in our own rows of pairs.
_NUMBERS = (*FIRST_SCORE, "relevance_score", "logit", "fused_score", "rank", "index")


class Table(NamedTuple):
    """Rows with their positions: objects, or lists of strings if `columns`. The caller closes the table."""

    name: str
    columns: bool
    rows: Iterator[tuple[Position, Json]]
    close: Callable[[], None]


def open_rows(path: str) -> Table:
    """Open a table whose format is detected from its first bytes. Rows are read lazily. Raises InputError."""
    stamp_of(path)
    opened = open_bytes(path)
    content, name, close = opened.content, opened.name, opened.content.close
    try:
        format = format_of(opened)
        if format in TABLES:
            table = open_table(opened, format, numbers=_NUMBERS)
            rows = _values(table.rows(Place()))
            return Table(name, False, map(_with_flags, rows) if format is InputFormat.CSV else rows, table.close)
        head = content.peek().removeprefix(BOM).lstrip()
        if head.startswith(b"["):
            found = json_input(opened, Place())
            return Table(name, False, _values(found.rows), found.close)
        lines = _checked(numbered_lines(content, name))
        if head.startswith(b"{"):
            return Table(name, False, _json(content, lines), close)
        if not head:
            raise InputError(f"{name}: is empty (expected rows of columns or JSON)")
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


def _with_flags(item: tuple[Position, Json]) -> tuple[Position, Json]:
    """A row of CSV with the column `truncated` as a boolean."""
    position, row = item
    return position, row | {"truncated": row["truncated"] in ("true", "True")} if row.get("truncated") else row


def _json(content: io.BufferedReader, lines: Iterator[tuple[Position, bytes]]) -> Iterator[tuple[Position, Json]]:
    """Lines of JSON. If the first line is not valid alone, the whole file is read as one value, or several."""
    for position, line in lines:
        try:
            yield position, decode_line(line)
        except BadRecord as error:
            if position.line == 1:
                whole = line + content.read()
                with suppress(orjson.JSONDecodeError):
                    yield position, orjson.loads(whole)
                    return
                if is_spread(whole.lstrip()):
                    yield from _values(object_rows(io.BufferedReader(io.BytesIO(whole)), position.path))
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
