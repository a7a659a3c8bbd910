"""Rows of one pair each, put together to requests: rows of one query stand together and make one request.

Keyed by the query's id, by its text where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.detection import other_shape
from rerank_cli.formats.shapes.documents import document_text
from rerank_cli.formats.shapes.fields import (
    AMBIGUOUS_ID,
    FIRST_SCORE,
    PAIR_DOC_ID,
    PAIR_QUERY_ID,
    Id,
    Names,
    an_id,
    first,
    first_number,
    present,
    without,
)
from rerank_cli.formats.shapes.requests import an_object, find_query
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Candidate, Json, Position, Request, Shape

_MANY = 1000


class PairRow(dict[str, Any]):
    """A candidate's source: its row without the query. `row` is all of it, in its own order, to be written again."""

    __slots__ = ("row",)
    row: dict[str, Json]


def grouped_by(query_id: Id, query: str) -> tuple[bool, Id]:
    """The key of a query: its id, or its text where it has none."""
    if query_id is None:
        return True, query
    whole = isinstance(query_id, float) and query_id.is_integer()
    return False, int(query_id) if whole else query_id


@dataclass(frozen=True, slots=True)
class Pair:
    """One row, understood."""

    query: str
    query_id: Id
    candidate: Candidate

    @property
    def key(self) -> tuple[bool, Id]:
        """What its query is grouped by: the id, or the text of one without an id."""
        return grouped_by(self.query_id, self.query)


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

    def add(self, pair: Pair, row: Row) -> None:  # noqa: ARG002 - as Group has it
        if pair.query != self.query:
            got = f"got `{shown(pair.query, 40)}`, expected `{shown(self.query, 40)}` as at line {self.position.line}"
            raise BadRecord("query_changed", f"the query's text differs from that of its other rows ({got})")
        name = pair.candidate.id
        if name is not None and name in self.ids:
            raise BadRecord("duplicate_id", f"the query has two rows for one document (got {shown(repr(name))} again)")
        self.ids.add(name)
        self.candidates.append(pair.candidate)

    def made(self) -> Request:
        return Request(self.query, tuple(self.candidates), self.position, self.id, Shape.PAIRS)


class PairReader:
    """Reads rows of pairs for `Grouping`; what it makes of a group is a request."""

    def __init__(self, fields: Names) -> None:
        self._fields = fields
        self._known: dict[tuple[str, ...], PairNames] = {}

    def understand(self, row: Row) -> Pair:
        """Raises BadRecord."""
        record = an_object(row.value)
        try:
            return pair_from(record, self.names(record))
        except BadRecord:
            if other := other_shape(record, Shape.PAIRS, self._fields):
                message = f"the record has another shape than the file (got {other}, expected pairs)"
                raise BadRecord("wrong_shape", message) from None
            raise

    def begin(self, item: Pair, position: Position) -> _Group:
        return _Group(item.key, item.query, item.query_id, position)

    def id_of(self, row: Row) -> Id:
        """The query id of a bad row, if it has a usable one."""
        names = self._fields.id if "id" in self._fields.mapped else PAIR_QUERY_ID
        found = first(row.value, names).value if isinstance(row.value, dict) else None
        return found if isinstance(found, str | int) and not isinstance(found, bool) else None

    def key_of(self, row: Row) -> tuple[bool, Id] | None:
        """The key of a row that may be bad otherwise, None for one without."""
        try:
            record = an_object(row.value)
            names = self.names(record).names
            query_id = an_id(first(record, names.id).value, "query id") if names.id else None
            return grouped_by(query_id, find_query(record, names).value if query_id is None else "")
        except BadRecord:
            return None

    def names(self, record: dict[str, Json]) -> PairNames:
        """Which column is what, remembered for rows of the same columns."""
        columns = tuple(record)
        known = self._known.get(columns)
        if known is None:
            if len(self._known) > _MANY:
                self._known.clear()
            known = self._known[columns] = pair_names(record, self._fields)
        return known
