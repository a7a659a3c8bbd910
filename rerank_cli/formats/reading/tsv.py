"""Tab-separated pairs: a header of known names, or the four columns of MS MARCO's `top1000`. Without quoting."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import suppress

from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.csv_dialect import KNOWN
from rerank_cli.formats.reading.lines import HEADER, decoded, numbered_lines, utf8_text
from rerank_cli.formats.shapes.fields import FIRST_SCORE, Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Rejection
from rerank_cli.storage.opening import Opened, is_file, open_bytes

_TOP1000 = ("qid", "pid", "query", "passage")


def is_header(line: bytes) -> bool:
    """Does the line contain at least two known column names?"""
    return len(KNOWN & set(line.decode("utf-8", "replace").rstrip("\r\n").split("\t"))) >= 2


def tsv_columns(opened: Opened, fields: Names) -> tuple[str, ...]:
    """The columns of an input, by its first usable line. Raises InputError if they are unknown."""
    if is_file(opened.path):
        content = open_bytes(opened.path).content
    else:
        content = io.BufferedReader(io.BytesIO(opened.content.peek(1)))
    with content:
        for item in numbered_lines(content, opened.name):
            with suppress(BadRecord):
                if not isinstance(item, Rejection):
                    return _columns(_cells(item[1]), opened.name, fields)[0]
    return ()


def tsv_rows(
    content: io.BufferedReader, name: str, fields: Names, start: Place, columns: tuple[str, ...] | None = None
) -> Iterator[Row | Rejection]:
    """One row per line: values as strings, scores as numbers. `columns` are needed if `start` is after the header."""

    def decode(line: bytes) -> Json:
        nonlocal columns
        cells = _cells(line)
        if columns is None:
            columns, named = _columns(cells, name, fields)
            if named:
                return HEADER
        if len(cells) != len(columns):
            fix = ". Fix: --input-format csv, if cells are quoted" if b'"' in line else ""
            raise BadRecord("bad_columns", f"the line has {len(cells)} columns (expected {len(columns)}){fix}")
        pairs = zip(columns, cells, strict=True)
        return {key: _score(cell) if key in FIRST_SCORE else cell for key, cell in pairs}

    return decoded(numbered_lines(content, name, start), decode)


def _cells(line: bytes) -> list[str]:
    return utf8_text(line).rstrip("\r\n").split("\t")


def _columns(cells: list[str], name: str, fields: Names) -> tuple[tuple[str, ...], bool]:
    """The file's columns, and whether its first line names them: at least two known or mapped names make a header."""
    known = KNOWN.union(*(getattr(fields, part) for part in fields.mapped))
    if len(known & set(cells)) >= 2:
        return tuple(cells), True
    if len(cells) == len(_TOP1000):
        return _TOP1000, False
    expected = f"got {len(cells)} columns without a header, expected {len(_TOP1000)} ({' '.join(_TOP1000)})"
    raise InputError(f"{name}: unknown columns ({expected}). Fix: add a first line with their names")


def _score(cell: str) -> str | float:
    """A finite number, else the cell as it is."""
    try:
        value = float(cell)
    except ValueError:
        return cell
    return value if math.isfinite(value) else cell
