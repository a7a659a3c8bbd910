"""Groups the rows of a run: a query's id with the ids of its candidates, in first-stage order, without texts.

First-stage order is by score, best first, ties in file order; without scores by rank; without either, file order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.runs.columns import RANK, RunRow, a_score
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
    """A parsed row: candidates of one query."""

    key: tuple[bool, Id]
    query_id: str | int | float
    entries: Sequence[Entry]
    row: Row


class RunQuery(NamedTuple):
    """A query and its candidates. `row` is the first row of the query."""

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

    def add(self, item: QueryCandidates) -> None:
        """All candidates of the row, or none: raises BadRecord for a document that the query has already."""
        added: set[str] = set()
        for entry in item.entries:
            key = key_of(entry.id)
            if key in self.known or key in added:
                raise BadRecord("duplicate_id", f"the query has one document twice (got {shown(repr(key))} again)")
            added.add(key)
        self.known |= added
        self.entries += item.entries

    def made(self) -> RunQuery:
        ordered = self.entries
        if all(entry.score is not None for entry in ordered):
            ordered = sorted(ordered, key=lambda entry: -(entry.score or 0.0))
        return RunQuery(self.query_id, ordered[: self.depth], self.row)


class RunReader:
    """Reads rows of a run for `Grouping`. Mapped field names take precedence over the known ones."""

    def __init__(self, depth: int | None, query_id: Sequence[str], doc_id: Sequence[str]) -> None:
        self._depth = depth
        self.query_id = (*query_id, *PAIR_QUERY_ID)
        self._doc_id = (*doc_id, *PAIR_DOC_ID)
        self._mapped = bool(query_id or doc_id)
        self.documents = (*self._doc_id, *_LISTS)

    def understand(self, row: Row) -> QueryCandidates:
        """Raises BadRecord."""
        if type(row.value) is RunRow and not self._mapped:
            query, document, score = row.value.values()
            return QueryCandidates((False, query), query, (Entry(document, score, row),), row)
        record = an_object(row.value)
        query_id = an_id(first(record, self.query_id).value, "query id")
        if query_id is None:
            got = f"got {names(record)}; expected {quoted(PAIR_QUERY_ID)}"
            raise BadRecord("missing_query_id", f"there is no query id ({got}). Fix: --id-field")
        return QueryCandidates((False, key_of(query_id)), query_id, self._entries(record, row), row)

    def begin(self, item: QueryCandidates, position: Position) -> _Group:  # noqa: ARG002 - as in Reader
        return _Group(item.key, item.query_id, item.row, self._depth)

    def id_of(self, row: Row) -> Id:
        """The query id of a bad row, None if it has no usable one."""
        found = first(row.value, self.query_id).value if isinstance(row.value, dict) else None
        return found if isinstance(found, str | int) and not isinstance(found, bool) else None

    def key_of(self, row: Row) -> str | None:
        """The sort key of a row that may be bad otherwise, None if it has no query id."""
        found = self.id_of(row)
        return None if found is None else key_of(found)

    def _entries(self, record: dict[str, Json], row: Row) -> list[Entry]:
        """One document with its score or rank, a list of ids in order, or an object of ids with scores, maybe empty."""
        name = an_id(first(record, self._doc_id).value, "document id")
        if name is not None:
            score, rank = first(record, FIRST_SCORE).value, record.get(RANK)
            if score is not None:
                return [Entry(name, a_score(score), row)]
            return [Entry(name, None if rank is None else a_score(rank, is_rank=True), row)]
        where, value = first(record, _LISTS)
        if where is None:
            got = f"got {names(record)}; expected {quoted(self.documents)}"
            raise BadRecord("no_candidates", f"there is no document id ({got}). Fix: --doc-id-field")
        if isinstance(value, dict):
            entries = [Entry(key, a_score(score), row) for key, score in value.items()]
        elif isinstance(value, list):
            entries = []
            for item in value:
                if (found := an_id(item, "document id")) is None:
                    raise BadRecord("bad_id", f"`{where}` contains null (expected ids)")
                entries.append(Entry(found, None, row))
        else:
            raise BadRecord("bad_documents", f"`{where}` is not a list (got {kind(value)})")
        return entries
