"""How the cells of a table are separated and quoted, by its first lines.

The delimiter, a comma, semicolon, tab or vertical bar, is the one that gives the header the most known names.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection
from itertools import chain

from rerank_cli.formats.shapes.fields import (
    DOC_ID,
    DOCUMENTS,
    FIRST_SCORE,
    QUERY,
    QUERY_ID,
    SPLIT_DOCUMENTS,
    TEXT,
)

LISTS = (*DOCUMENTS, *chain.from_iterable(SPLIT_DOCUMENTS))
KNOWN = frozenset((*QUERY, *QUERY_ID, *DOC_ID, *TEXT, *FIRST_SCORE, *LISTS, "title", "rank"))
HEAD = 1 << 16
"""How many of the first bytes of an input decide on its format."""

_DELIMITERS = ",;\t|"
_QUOTED = rb'"(?:[^"\t\r\n]|"")*"'
# A cell in quotes with doubled quotes inside, which are no part of a text; and a cell with any other quotes.
_DOUBLED = re.compile(rb'(?:^|\t)"[^"\t\r\n]*(?:""[^"\t\r\n]*)+"(?=[\t\r\n])', re.MULTILINE)
_STRAY = re.compile(rb"(?:^|\t)(?!" + _QUOTED + rb'[\t\r\n])[^\t\n"]*"', re.MULTILINE)


def delimiter_of(header: str, known: Collection[str]) -> str | None:
    """The delimiter that gives a header line the most known names, None if none gives it two."""
    counts = {
        delimiter: len({cell.strip() for cell in _cells(header, delimiter)}.intersection(known))
        for delimiter in _DELIMITERS
    }
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] >= 2 else None


def most_cells(header: str) -> str:
    return max(_DELIMITERS, key=lambda delimiter: len(_cells(header, delimiter)))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return []


def is_quoted(head: bytes) -> bool:
    """Whether tab-separated lines have quotes as in CSV, given the first of them.

    They have if the names of the header are quoted; if only cells with tabs and line breaks inside explain the lines;
    or if all cells with quotes are quoted, and one has doubled quotes inside.
    """
    lines = head[: head.rfind(b"\n") + 1]
    if head.startswith(b'"') or b'"' not in lines:
        return head.startswith(b'"')
    columns = {line.count(b"\t") for line in lines.splitlines() if line.strip()}
    if len(columns) == 1:
        return _DOUBLED.search(lines) is not None and _STRAY.search(lines) is None
    try:
        rows = list(csv.reader(io.StringIO(lines.decode("utf-8", "replace"), newline=""), delimiter="\t"))
    except csv.Error:
        return False
    complete = rows if len(head) < HEAD else rows[:-1]  # the last row may go on after the head
    return len({len(row) for row in complete if row}) == 1
