"""Rows of a run put together: a query's id with the ids of its candidates, in first-stage order.

That is the order of scores, best first, ties as they stand in the file; of ranks where there are none; of the file
where there is neither. Texts are unknown here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.runs.columns import RANK, RunRow, a_score, score_of_rank
from rerank_cli.formats.shapes.fields import FIRST_SCORE, PAIR_DOC_ID, PAIR_QUERY_ID, Id, an_id, first, key_of
from rerank_cli.formats.shapes.requests import an_object
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Position

_LISTS = ("corpus-ids", "corpus_ids", "docids", "doc_ids")


class Entry(NamedTuple):
    """A candidate: its id, its first-stage score, and the row that names it."""

    id: str | int | float
    score: float | None
    row: Row


class QueryCandidates(NamedTuple):
    """A row, understood: candidates of one query."""

    key: tuple[bool, Id]
    query_id: str | int | float
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class RunQuery:
    """A query and its candidates. `row` is the first that names the query."""

    query_id: str | int | float
    entries: Sequence[Entry]
    row: Row


@dataclass(slots=True)
class _Group:
    key: tuple[bool, Id]
    query_id: str | int | float
    row: Row
    depth: int | None
    entries: list[Entry] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    @property
    def position(self) -> Position:
        return self.row.position

    def add(self, item: QueryCandidates, row: Row) -> None:  # noqa: ARG002 - as Group has it
        if len(item.entries) == 1 and (key := key_of(item.entries[0].id)) not in self.known:
            self.known.add(key)
            self.entries += item.entries
            return
        keys = {key_of(entry.id) for entry in item.entries}
        if len(keys) < len(item.entries) or not self.known.isdisjoint(keys):
            twice = next(name for name, count in Counter(self._keys(item)).items() if count > 1)
            raise BadRecord("duplicate_id", f"the query names one document twice (got {shown(repr(twice))} again)")
        self.known |= keys
        self.entries += item.entries

    def _keys(self, item: QueryCandidates) -> list[str]:
        return [*self.known, *(key_of(entry.id) for entry in item.entries)]

    def made(self) -> RunQuery:
        ordered = self.entries
        if all(entry.score is not None for entry in ordered):
            ordered = sorted(ordered, key=lambda entry: -(entry.score or 0.0))
        return RunQuery(self.query_id, ordered[: self.depth], self.row)


class RunReader:
    """Reads rows of a run for `Grouping`; names that were mapped come before those of the table."""

    def __init__(self, depth: int | None, query_id: Sequence[str], doc_id: Sequence[str]) -> None:
        self._depth = depth
        self.query_id = (*query_id, *PAIR_QUERY_ID)
        self._doc_id = (*doc_id, *PAIR_DOC_ID)
        self._as_named = not (query_id or doc_id)
        self.documents = (*self._doc_id, *_LISTS)

    def understand(self, row: Row) -> QueryCandidates:
        """Raises BadRecord."""
        if type(row.value) is RunRow and self._as_named:
            query, document, score = row.value.values()
            return QueryCandidates((False, query), query, (Entry(document, score, row),))
        record = an_object(row.value)
        query_id = an_id(first(record, self.query_id).value, "query id")
        if query_id is None:
            got = f"got {names(record)}; expected {quoted(PAIR_QUERY_ID)}"
            raise BadRecord("missing_query_id", f"there is no id of a query ({got}). Fix: --id-field")
        return QueryCandidates((False, key_of(query_id)), query_id, self._entries(record, row))

    def begin(self, item: QueryCandidates, position: Position) -> _Group:  # noqa: ARG002 - as Reader has it
        return _Group(item.key, item.query_id, item.entries[0].row, self._depth)

    def id_of(self, row: Row) -> Id:
        """The query id of a bad row, if it has a usable one."""
        found = first(row.value, self.query_id).value if isinstance(row.value, dict) else None
        return found if isinstance(found, str | int) and not isinstance(found, bool) else None

    def key_of(self, row: Row) -> str | None:
        """What a row that may be bad otherwise is sorted by, None for one without."""
        found = self.id_of(row)
        return None if found is None else key_of(found)

    def _entries(self, record: dict[str, Json], row: Row) -> list[Entry]:
        name = an_id(first(record, self._doc_id).value, "document id")
        if name is not None:
            return [Entry(name, _score(record), row)]
        found = first(record, _LISTS)
        if found.name is None:
            got = f"got {names(record)}; expected {quoted(self.documents)}"
            raise BadRecord("no_candidates", f"there is no id of a document ({got}). Fix: --doc-id-field")
        return _from_list(found.value, found.name, row)


def _from_list(value: Json, name: str, row: Row) -> list[Entry]:
    """Ids in order, or an object of ids with their scores."""
    if isinstance(value, dict):
        entries = [Entry(key, a_score(score), row) for key, score in value.items()]
    elif isinstance(value, list):
        entries = [Entry(_in_list(item, name), None, row) for item in value]
    else:
        raise BadRecord("bad_documents", f"`{name}` is not a list (got {kind(value)})")
    if not entries:
        raise BadRecord("no_candidates", f"`{name}` is empty (expected at least one document)")
    return entries


def _in_list(item: Json, name: str) -> str | int | float:
    found = an_id(item, "document id")
    if found is None:
        raise BadRecord("bad_id", f"`{name}` holds null (expected ids)")
    return found


def _score(record: dict[str, Json]) -> float | None:
    score, rank = first(record, FIRST_SCORE).value, record.get(RANK)
    if score is not None:
        return a_score(score)
    return None if rank is None else score_of_rank(a_score(rank))
