"""Tab-separated pairs: a header of known names, or the four columns of MS MARCO's `top1000`. No quoting at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

from rerank_cli.display import excerpt
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.lines import numbered_lines
from rerank_cli.formats.shapes.fields import DOC_ID, FIRST_SCORE, QUERY, QUERY_ID, TEXT, Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Rejection

TOP1000 = ("qid", "pid", "query", "passage")
_KNOWN = frozenset((*QUERY, *QUERY_ID, *DOC_ID, *TEXT, *FIRST_SCORE, "title", "rank"))


def is_header(line: bytes) -> bool:
    """Does the line name columns that are known?"""
    return len(_KNOWN & set(line.decode("utf-8", "replace").rstrip("\r\n").split("\t"))) >= 2


def tsv_columns(content: io.BufferedReader, name: str, fields: Names) -> tuple[str, ...]:
    """The columns of a file that is read from its beginning; InputError if they cannot be told."""
    for item in numbered_lines(content, name):
        with suppress(BadRecord):
            if not isinstance(item, Rejection):
                return _columns(_cells(item[1]), name, fields)[0]
    return ()


def tsv_rows(
    content: io.BufferedReader, name: str, fields: Names, start: Place, columns: tuple[str, ...] | None = None
) -> Iterator[Row | Rejection]:
    """One row a line, values as strings, scores as numbers; `columns` if `start` lies behind the line that tells."""
    for item in numbered_lines(content, name, start):
        if isinstance(item, Rejection):
            yield item
            continue
        position, line = item
        try:
            cells = _cells(line)
            if columns is None:
                columns, is_header = _columns(cells, name, fields)
                if is_header:
                    continue
            yield Row(position, _row(columns, cells), line)
        except BadRecord as error:
            yield Rejection(position, error.code, str(error), raw=excerpt(line))


def _cells(line: bytes) -> list[str]:
    try:
        return line.decode("utf-8").rstrip("\r\n").split("\t")
    except UnicodeDecodeError as wrong:
        message = f"the line is not valid UTF-8 (got byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})"
        raise BadRecord("bad_utf8", message) from None


def _columns(cells: list[str], name: str, fields: Names) -> tuple[tuple[str, ...], bool]:
    """The file's columns, and whether its first line named them. Two known names make a header."""
    known = _KNOWN | {given[0] for part in fields.mapped for given in [getattr(fields, part)]}
    if len(known & set(cells)) >= 2:
        return tuple(cells), True
    if len(cells) == len(TOP1000):
        return TOP1000, False
    expected = f"got {len(cells)} columns without a header, expected {len(TOP1000)} ({' '.join(TOP1000)})"
    raise InputError(f"{name}: the columns cannot be told ({expected}). Fix: add a first line with their names")


def _row(columns: tuple[str, ...], cells: list[str]) -> dict[str, Json]:
    if len(cells) != len(columns):
        raise BadRecord("bad_columns", f"the line has {len(cells)} columns (expected {len(columns)})")
    return {key: _score(cell) if key in FIRST_SCORE else cell for key, cell in zip(columns, cells, strict=True)}


def _score(cell: str) -> str | float:
    try:
        value = float(cell)
    except ValueError:
        return cell
    return value if abs(value) < float("inf") else cell
