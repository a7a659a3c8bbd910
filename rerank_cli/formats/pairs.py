"""Rows of one pair each, put together to requests: rows of one query stand together and make one request.

Keyed by the query's id, by its text where there is none. A row that cannot be used is rejected alone and its group goes
on; a query that comes back later is rejected row by row, naming the place where it was first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rerank_cli.errors import BadRecord
from rerank_cli.formats.detection import other_shape
from rerank_cli.formats.documents import document_text
from rerank_cli.formats.fields import (
    AMBIGUOUS_ID,
    FIRST_SCORE,
    PAIR_DOC_ID,
    PAIR_QUERY_ID,
    Names,
    an_id,
    first,
    first_number,
    present,
    without,
)
from rerank_cli.formats.requests import an_object, find_query
from rerank_cli.formats.rows import Row
from rerank_cli.formats.wording import shown
from rerank_cli.records import Candidate, Json, Place, Position, Record, Rejection, Request, Shape

if TYPE_CHECKING:
    from rerank_cli.formats.seen import SeenQueries

Id = str | int | float | None


class PairRow(dict[str, Any]):
    """A candidate's source: its row without the query. `row` is all of it, in its own order, to be written again."""

    __slots__ = ("row",)
    row: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row, understood."""

    query: str
    query_id: Id
    candidate: Candidate

    @property
    def key(self) -> tuple[bool, Id]:
        """What its query is grouped by: the id, or the text of one without an id."""
        if self.query_id is None:
            return True, self.query
        whole = isinstance(self.query_id, float) and self.query_id.is_integer()
        return False, int(self.query_id) if whole else self.query_id


@dataclass(frozen=True, slots=True)
class PairNames:
    """Where the parts stand in rows with a certain set of columns. `query_columns` are no part of a document."""

    names: Names
    query_columns: tuple[str, ...]


def pair_names(row: dict[str, Json], fields: Names) -> PairNames:
    """Settle which column is what, by the columns a row has."""
    query = fields.query if "query" in fields.mapped else _there(row, fields.query) or fields.query
    query_id = fields.id if "id" in fields.mapped else _there(row, PAIR_QUERY_ID)
    ambiguous = tuple(name for name in AMBIGUOUS_ID if query_id and name not in query_id)
    doc_id = fields.doc_id if "doc_id" in fields.mapped else _there(row, PAIR_DOC_ID + ambiguous)
    names = Names(query, fields.documents, fields.text, query_id, doc_id, fields.mapped)
    return PairNames(names, (*query[:1], *query_id[:1]))


def _there(row: dict[str, Json], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if present(row, (name,)))


def pair_from(row: dict[str, Json], known: PairNames) -> Pair:
    """The query and the candidate in a row. Raises BadRecord."""
    names = known.names
    query = find_query(row, names).value
    text = document_text(row, names)
    title = row.get("title")
    if title and type(title) is str:
        text = f"{title} {text}".strip()
    source = PairRow(without(row, known.query_columns))
    source.row = row
    query_id = an_id(first(row, names.id).value, "query id") if names.id else None
    doc_id = an_id(first(row, names.doc_id).value, "document id") if names.doc_id else None
    return Pair(query, query_id, Candidate(text, source, doc_id, first_number(row, FIRST_SCORE)))


@dataclass(slots=True)
class _Group:
    key: tuple[bool, Id]
    query: str
    id: Id
    position: Position
    candidates: list[Candidate] = field(default_factory=list)
    ids: set[Id] = field(default_factory=set)

    def add(self, pair: Pair) -> None:
        if pair.query != self.query:
            got = f"got `{shown(pair.query, 40)}`, expected `{shown(self.query, 40)}` as at line {self.position.line}"
            raise BadRecord("query_changed", f"the query's text differs from that of its other rows ({got})")
        name = pair.candidate.id
        if name is not None and name in self.ids:
            raise BadRecord("duplicate_id", f"the query has two rows for one document (got {shown(repr(name))} again)")
        self.ids.add(name)
        self.candidates.append(pair.candidate)

    def request(self) -> Request:
        return Request(self.query, tuple(self.candidates), self.position, self.id, Shape.PAIRS)


class Grouping:
    """Rows in, records out. Keeps one group, and in `seen` where each earlier one began; `paths` names the inputs."""

    def __init__(self, fields: Names, seen: SeenQueries, paths: Sequence[str]) -> None:
        self._fields = fields
        self._seen = seen
        self._paths = paths
        self._known: dict[tuple[str, ...], PairNames] = {}
        self._group: _Group | None = None

    def records(self, rows: Iterator[Row | Rejection]) -> Iterator[Record]:
        """One request a group, at the group's last row; rejections where they occur."""
        for row in rows:
            if isinstance(row, Rejection):
                yield replace(row, position=self._inside(row.position))
                continue
            try:
                finished = self._take(row)
            except BadRecord as error:
                position = self._inside(row.position)
                yield Rejection(position, error.code, str(error), self._id_of(row), row.excerpt())
                continue
            if finished:
                yield finished.request()
        if self._group:
            yield self._group.request()

    def _inside(self, position: Position) -> Position:
        """The position of a bad row: to be found again from where the group begins that is not finished yet."""
        return replace(position, place=self._group.position.place) if self._group else position

    def _take(self, row: Row) -> _Group | None:
        """Add a row to its group; returns the group before if this row begins another."""
        pair = self._understand(row)
        if self._group and pair.key == self._group.key:
            self._group.add(pair)
            return None
        self._check_new(pair, row.position)
        before = self._group
        self._group = _Group(pair.key, pair.query, pair.query_id, row.position)
        self._group.add(pair)
        return before

    def _id_of(self, row: Row) -> Id:
        """The query id of a bad row, if it has a usable one."""
        names = self._fields.id if "id" in self._fields.mapped else PAIR_QUERY_ID
        found = first(row.value, names).value if isinstance(row.value, dict) else None
        return found if isinstance(found, str | int) and not isinstance(found, bool) else None

    def _understand(self, row: Row) -> Pair:
        record = an_object(row.value)
        columns = tuple(record)
        known = self._known.get(columns)
        if known is None:
            known = self._known[columns] = pair_names(record, self._fields)
            if len(self._known) > 1000:
                self._known.clear()
        try:
            return pair_from(record, known)
        except BadRecord:
            if other := other_shape(record, Shape.PAIRS, self._fields):
                message = f"the record has another shape than the file (got {other}, expected pairs)"
                raise BadRecord("wrong_shape", message) from None
            raise

    def _check_new(self, pair: Pair, position: Position) -> None:
        place = position.place or Place()
        file, rows = self._seen.first(pair.key, place)
        if (file, rows) != (place.file, place.rows):
            what = "query" if pair.query_id is None else "query id"
            first = f"{self._paths[file]}:{rows + 1}"
            where = f"got {shown(repr(pair.key[1]))} again, after other queries; it was first at {first}"
            raise BadRecord("query_returned", f"rows of one {what} must stand together ({where}). Fix: sort the input")
