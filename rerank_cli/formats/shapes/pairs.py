"""Rows of one pair each to requests: adjacent rows of one query make one request.

Rows are grouped by the query's id, or by its text if it has no id. With a query of the caller's, rows are its hits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.detection import wrong_shape
from rerank_cli.formats.shapes.documents import full_text, hit_in, score_of
from rerank_cli.formats.shapes.fields import (
    AMBIGUOUS_ID,
    PAIR_DOC_ID,
    PAIR_QUERY_ID,
    Id,
    Names,
    an_id,
    first,
    present,
    without,
)
from rerank_cli.formats.shapes.hits import Layout, hit_to_candidate, without_distances
from rerank_cli.formats.shapes.requests import an_object, find_query
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Candidate, Json, Position, Request, Shape

_SIMILARITY = "similarity"  # as queries of pgvector name the score of a hit
_MANY = 1000
Key = tuple[bool, Id]


class PairRow(dict[str, Any]):
    """A candidate's source: its row without the query. `row` is the whole row in its own key order, for the output."""

    __slots__ = ("row",)
    row: dict[str, Json]


class Pair(NamedTuple):
    """The query and the candidate of one row. `key` identifies the query, see `_key`."""

    key: Key
    query: str
    query_id: Id
    candidate: Candidate


class PairNames(NamedTuple):
    """The field names of rows with a certain set of columns. `query_columns` are no part of a document.

    `layout` is that of rows that are hits of a search engine.
    """

    names: Names
    query_columns: tuple[str, ...]
    layout: Layout | None = None


def pair_names(row: dict[str, Json], fields: Names) -> PairNames:
    """Assign a role to each column, by the columns a row has."""
    query = fields.query if "query" in fields.mapped else _present_of(fields.query, row) or fields.query
    query_id = fields.id if "id" in fields.mapped else _present_of(PAIR_QUERY_ID, row)
    ambiguous = tuple(name for name in AMBIGUOUS_ID if query_id and name not in query_id)
    score = fields.score
    if fields.asked is not None:  # all columns are the document's
        query, query_id, ambiguous = (), (), AMBIGUOUS_ID
        score = score if "score" in fields.mapped else (*score, _SIMILARITY)
    doc_id = fields.doc_id if "doc_id" in fields.mapped else _present_of(PAIR_DOC_ID + ambiguous, row)
    names = replace(fields, query=query, id=query_id, doc_id=doc_id, score=score)
    return PairNames(names, (*query[:1], *query_id[:1]), hit_in(row, fields))


def _present_of(names: tuple[str, ...], row: dict[str, Json]) -> tuple[str, ...]:
    return tuple(name for name in names if present(row, (name,)))


def pair_from(row: dict[str, Json], known: PairNames) -> Pair:
    """The query and the candidate in a row. Raises BadRecord."""
    names = known.names
    query = find_query(row, names).value
    source = PairRow(without(row, known.query_columns))
    source.row = row
    query_id = an_id(first(row, names.id).value, "query id")
    if known.layout:
        candidate = replace(hit_to_candidate(row, known.layout, names), source=source)
    else:
        doc_id = an_id(first(row, names.doc_id).value, "document id")
        candidate = Candidate(full_text(row, names, nested_title=False), source, doc_id, score_of(row, names))
    return Pair(_key(query_id, query), query, query_id, candidate)


def _key(query_id: Id, query: str) -> Key:
    """(False, id), with whole numbers as int; (True, text) for a query without an id."""
    if query_id is None:
        return True, query
    return False, int(query_id) if isinstance(query_id, float) and query_id.is_integer() else query_id


@dataclass(slots=True)
class _Group:
    key: Key
    query: str
    id: Id
    position: Position
    fields: Names
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

    def made(self) -> Request:
        if self.fields.asked is None:
            return Request(self.query, tuple(self.candidates), self.position, self.id, Shape.PAIRS)
        candidates = self.candidates if "score" in self.fields.mapped else without_distances(self.candidates)
        return Request(self.query, tuple(candidates), self.position, self.id, Shape.HITS)


class PairReader:
    """Reads rows of pairs for `Grouping`; a group becomes a request."""

    def __init__(self, fields: Names) -> None:
        self._fields = fields
        self._known: dict[tuple[str, ...], PairNames] = {}

    def understand(self, row: Row) -> Pair:
        """Raises BadRecord."""
        record = an_object(row.value)
        try:
            return pair_from(record, self._names(record))
        except BadRecord as error:
            raise wrong_shape(record, Shape.PAIRS, self._fields) or error from None

    def begin(self, item: Pair, position: Position) -> _Group:
        return _Group(item.key, item.query, item.query_id, position, self._fields)

    def id_of(self, row: Row) -> Id:
        """The query id of a bad row, if it has a usable one."""
        names = self._fields.id if "id" in self._fields.mapped else PAIR_QUERY_ID
        found = first(row.value, names).value if isinstance(row.value, dict) else None
        return found if isinstance(found, str | int) and not isinstance(found, bool) else None

    def key_of(self, row: Row) -> Key | None:
        """The key of a row that may be bad otherwise, None if it has none."""
        try:
            record = an_object(row.value)
            names = self._names(record).names
            query_id = an_id(first(record, names.id).value, "query id")
            return _key(query_id, find_query(record, names).value if query_id is None else "")
        except BadRecord:
            return None

    def _names(self, record: dict[str, Json]) -> PairNames:
        """The field names, cached for rows of the same columns."""
        columns = tuple(record)
        known = self._known.get(columns)
        if known is None:
            if len(self._known) > _MANY:
                self._known.clear()
            known = self._known[columns] = pair_names(record, self._fields)
        return known
