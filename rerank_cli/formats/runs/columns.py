"""Runs as columns of text: TREC's six, and what else is used: told by the first lines, read one row a line.

White space of any kind separates; in a line with tabs, where that gives another number of columns, tabs alone do.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rerank_cli.choices import RunValues
from rerank_cli.display import excerpt, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.lines import numbered_lines
from rerank_cli.formats.shapes.fields import FIRST_SCORE, PAIR_DOC_ID, PAIR_QUERY_ID
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Rejection
from rerank_cli.storage.opening import BOM

QUERY, DOCUMENT, SCORE, RANK = "query_id", "docid", "score", "rank"
# Where query, document and score stand in so many columns: TREC (6, or 5 without a tag), Tevatron (4, 3), bare pairs.
_BY_COUNT = {2: (0, 1, None), 3: (0, 1, 2), 4: (0, 1, 3), 5: (0, 2, 4), 6: (0, 2, 4)}
_ITERATION = (b"0", b"Q0", b"q0")


class RunRow(dict[str, Json]):
    """A row whose values are the ids of query and document, and the score or None, in this order."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RunColumns:
    """`value` is the column of scores, or of ranks if `ranked`, None where there is neither."""

    count: int
    query: int
    document: int
    value: int | None
    ranked: bool = False
    header: bool = False

    @property
    def description(self) -> str:
        return "a TREC run" if self.count >= 5 else f"a run of {self.count} columns, {self._values}"

    @property
    def _values(self) -> str:
        return "without scores" if self.value is None else "with ranks" if self.ranked else "with scores"

    def row(self, line: bytes) -> RunRow:
        """Raises BadRecord."""
        cells = _cells(line, self.count)
        if len(cells) != self.count:
            raise BadRecord("bad_columns", f"the line has {len(cells)} columns (expected {self.count})")
        score = None if self.value is None else a_score(cells[self.value])
        if self.ranked and score is not None:
            score = score_of_rank(score)
        return RunRow({QUERY: _text(cells[self.query]), DOCUMENT: _text(cells[self.document]), SCORE: score})


def columns_of(head: bytes, name: str, values: RunValues) -> RunColumns:
    """The columns of a run that begins so. Raises InputError if they cannot be told."""
    lines = [line for line in head.removeprefix(BOM).splitlines()[:1000] if line.strip()]
    cut = len(lines) > 1 and not head.endswith((b"\n", b"\r"))
    cells = [_cells(line) for line in (lines[:-1] if cut else lines)]
    if not cells:
        return RunColumns(6, 0, 2, 4)
    named = _named(cells[0])
    if named:
        return named
    count = len(cells[0])
    if count not in _BY_COUNT:
        expected = "expected 6 of TREC, or 3 or 4 (query, document, score)"
        raise InputError(f"{name}:1: is no run that is known (got {count} columns; {expected})")
    query, document, value = _BY_COUNT[count]
    same = [row for row in cells if len(row) == count]
    if count == 4 and all(row[1] in _ITERATION for row in same):
        document = 2
    ranked = count == 3 and (values is RunValues.RANKS or (values is RunValues.AUTO and _are_ranks(same)))
    return RunColumns(count, query, document, value, ranked)


def run_rows(content: io.BufferedReader, name: str, columns: RunColumns, start: Place) -> Iterator[Row | Rejection]:
    """One row a line, from `start` on."""
    header = columns.header and not start.rows
    for item in numbered_lines(content, name, start):
        if isinstance(item, Rejection):
            yield item
            continue
        position, line = item
        if header:
            header = False
            continue
        try:
            yield Row(position, columns.row(line), line)
        except BadRecord as error:
            yield Rejection(position, error.code, str(error), raw=excerpt(line))


def a_score(cell: bytes | str | float) -> float:
    """A number to order by. Raises BadRecord."""
    try:
        value = float(cell)
    except (ValueError, TypeError):
        value = math.nan
    if math.isfinite(value):
        return value
    got = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
    raise BadRecord("bad_score", f"the score is no finite number (got {shown(got, 40)})")


def score_of_rank(rank: float) -> float:
    """1/rank, as converters of MS MARCO's submissions write it. Raises BadRecord."""
    if rank < 1:
        raise BadRecord("bad_rank", f"the rank cannot be used (got {rank:g}, expected a number from 1)")
    return 1 / rank


def _cells(line: bytes, count: int | None = None) -> list[bytes]:
    cells = line.split()
    if len(cells) != count and b"\t" in line and (count or len(cells) not in _BY_COUNT):
        return [cell.strip() for cell in line.strip(b"\r\n").split(b"\t")]
    return cells


def _named(cells: Sequence[bytes]) -> RunColumns | None:
    """The columns if the first line names them."""
    names = [cell.decode("utf-8", "replace") for cell in cells]

    def at(known: Sequence[str]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    query, document, score, rank = at(PAIR_QUERY_ID), at(PAIR_DOC_ID), at(FIRST_SCORE), at((RANK,))
    if query is None or document is None:
        return None
    return RunColumns(
        len(names), query, document, rank if score is None else score, score is None and rank is not None, header=True
    )


def _are_ranks(cells: Sequence[Sequence[bytes]]) -> bool:
    """Do the values of every query count from 1 upwards?"""
    before: tuple[bytes, int] = (b"", 0)
    for query, _, value in cells:
        expected = before[1] + 1 if query == before[0] else 1
        if value != str(expected).encode():
            return False
        before = (query, expected)
    return True


def _text(cell: bytes) -> str:
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise BadRecord("bad_utf8", f"the id is not valid UTF-8 (got byte 0x{cell[wrong.start]:02x})") from None
