"""Runs as columns of text: TREC's six columns and other layouts, detected from the first lines; one row per line.

White space of any kind separates columns. A line with tabs for which that gives another number of columns than expected
is split at tabs only.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from rerank_cli.choices import RunValues
from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.lines import HEADER, decoded, numbered_lines
from rerank_cli.formats.shapes.fields import FIRST_SCORE, PAIR_DOC_ID, PAIR_QUERY_ID
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.formats.shapes.texts import text_of
from rerank_cli.records import Json, Place, Rejection
from rerank_cli.storage.opening import BOM

QUERY, DOCUMENT, SCORE, RANK = "query_id", "docid", "score", "rank"
# Number of columns -> query, document and score column: TREC (6, or 5 without a tag), Tevatron (4, 3), bare pairs (2).
_BY_COUNT = {2: (0, 1, None), 3: (0, 1, 2), 4: (0, 1, 3), 5: (0, 2, 4), 6: (0, 2, 4)}
_ITERATION = (b"0", b"Q0", b"q0")


class RunRow(dict[str, Json]):
    """A row with exactly three values, in this order: query id, document id, score or None."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RunColumns:
    """`value` is the column of scores, or of ranks if `ranked`; None if there is neither."""

    count: int
    query: int
    document: int
    value: int | None
    ranked: bool = False
    header: bool = False

    @property
    def description(self) -> str:
        values = "without scores" if self.value is None else "with ranks" if self.ranked else "with scores"
        return "a TREC run" if self.count >= 5 else f"a run of {self.count} columns, {values}"

    def row(self, line: bytes) -> RunRow:
        """Raises BadRecord."""
        cells = _cells(line, self.count)
        if len(cells) != self.count:
            raise BadRecord("bad_columns", f"the line has {len(cells)} columns (expected {self.count})")
        score = None if self.value is None else a_score(cells[self.value], self.ranked)
        query, document = text_of(cells[self.query], "query id"), text_of(cells[self.document], "document id")
        return RunRow({QUERY: query, DOCUMENT: document, SCORE: score})


def columns_of(head: bytes, name: str, values: RunValues) -> RunColumns:
    """The columns of a run, detected from its first bytes. Raises InputError for an unknown layout."""
    lines = [line for line in head.removeprefix(BOM).splitlines()[:1000] if line.strip()]
    cut = len(lines) > 1 and not head.endswith((b"\n", b"\r"))
    cells = [_cells(line) for line in (lines[:-1] if cut else lines)]
    if not cells:
        return RunColumns(6, 0, 2, 4)
    header = [cell.decode("utf-8", "replace") for cell in cells[0]]

    def named(known: Sequence[str]) -> int | None:
        return next((header.index(name) for name in known if name in header), None)

    query, document, score, rank = named(PAIR_QUERY_ID), named(PAIR_DOC_ID), named(FIRST_SCORE), named((RANK,))
    count = len(header)
    if query is not None and document is not None:
        ranked = score is None and rank is not None
        return RunColumns(count, query, document, rank if ranked else score, ranked, header=True)
    if count not in _BY_COUNT:
        expected = "expected 6 of TREC, or 3 or 4 (query, document, score)"
        raise InputError(f"{name}:1: not a known run format (got {count} columns; {expected})")
    query, document, value = _BY_COUNT[count]
    same = [row for row in cells if len(row) == count]
    if count == 4 and all(row[1] in _ITERATION for row in same):
        document = 2
    ranked = count == 3 and (values is RunValues.RANKS or (values is RunValues.AUTO and _are_ranks(same)))
    return RunColumns(count, query, document, value, ranked)


def run_rows(content: io.BufferedReader, name: str, columns: RunColumns, start: Place) -> Iterator[Row | Rejection]:
    """One row per line, from `start` on."""
    header = columns.header and not start.rows

    def decode(line: bytes) -> Json:
        nonlocal header
        if header:
            header = False
            return HEADER
        return columns.row(line)

    return decoded(numbered_lines(content, name, start), decode if header else columns.row)


def a_score(cell: bytes | str | float, is_rank: bool = False) -> float:
    """A finite score; for a rank 1/rank, as converters of MS MARCO submissions write it. Raises BadRecord."""
    try:
        value = float(cell)
    except (ValueError, TypeError):
        value = math.nan
    if not math.isfinite(value):
        got = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
        raise BadRecord("bad_score", f"the score is not a finite number (got {shown(got, 40)})")
    if is_rank and value < 1:
        raise BadRecord("bad_rank", f"the rank is not valid (got {value:g}, expected a number from 1)")
    return 1 / value if is_rank else value


def _cells(line: bytes, count: int | None = None) -> list[bytes]:
    cells = line.split()
    if len(cells) != count and b"\t" in line and (count or len(cells) not in _BY_COUNT):
        return [cell.strip() for cell in line.strip(b"\r\n").split(b"\t")]
    return cells


def _are_ranks(rows: Sequence[Sequence[bytes]]) -> bool:
    """Whether the values of every query count up from 1."""
    queries = groupby(rows, key=itemgetter(0))
    return all(value == b"%d" % rank for _, same in queries for rank, (_, _, value) in enumerate(same, 1))
