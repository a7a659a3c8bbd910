"""Ids of queries and candidates to requests: their texts are looked up, many queries' at a time.

A candidate that the corpus does not have, or only badly, is a Rejection of its own before its query's request, which
has the others; a query that is not known is one Rejection. All have the place where the query begins in the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.documents import Documents, Found
from rerank_cli.formats.runs.by_id import Entry, RunQuery
from rerank_cli.formats.shapes.documents import full_text
from rerank_cli.formats.shapes.fields import INSTRUCTION, Names, first, key_of, without
from rerank_cli.formats.shapes.requests import find_query, optional
from rerank_cli.records import Candidate, Json, Record, Rejection, Request

_BATCH_PAIRS = 4096
_BATCH_BYTES = 64 << 20

Text = tuple[str, Json] | BadRecord
"""A candidate's text with the document it is of."""


@dataclass(frozen=True, slots=True)
class Side:
    """Queries or a corpus: what they are called, and where the parts of one stand."""

    name: str
    documents: Documents
    fields: Names


class Join:
    """Looks up what listings name."""

    def __init__(self, queries: Side, corpus: Side) -> None:
        self._queries = queries
        self._corpus = corpus

    @property
    def description(self) -> str:
        """How much there is to look up, in one phrase."""
        counts = [side.documents.index.count for side in (self._queries, self._corpus)]
        return f"{counts[0]:,} queries and {counts[1]:,} documents by id"

    def close(self) -> None:
        """To be called from any state, also more than once."""
        self._queries.documents.close()
        self._corpus.documents.close()

    def records(self, listings: Iterable[RunQuery | Rejection]) -> Iterator[Record]:
        """The same records, however many are looked up at a time."""
        for batch in _batches(listings):
            yield from self._joined(batch)

    def _joined(self, batch: list[RunQuery | Rejection]) -> Iterator[Record]:
        for part in self._parts(batch):
            listings = [item for item in part if isinstance(item, RunQuery)]
            queries = self._queries.documents.find([key_of(listing.query_id) for listing in listings])
            found = self._corpus.documents.find([key_of(e.id) for listing in listings for e in listing.entries])
            texts = {key: self._text(key, document) for key, document in found.items()}
            for item in part:
                if isinstance(item, Rejection):
                    yield item
                else:
                    yield from self._records(item, queries[key_of(item.query_id)], texts)

    def _parts(self, batch: list[RunQuery | Rejection]) -> Iterator[list[RunQuery | Rejection]]:
        """The batch in parts whose documents fit the memory; one query's always do."""
        keys = [key_of(e.id) for item in batch if isinstance(item, RunQuery) for e in item.entries]
        sizes = iter(self._corpus.documents.sizes(keys))
        part: list[RunQuery | Rejection] = []
        held = 0
        for item in batch:
            size = sum(next(sizes) for _ in item.entries) if isinstance(item, RunQuery) else 0
            if part and held + size > _BATCH_BYTES:
                yield part
                part, held = [], 0
            part.append(item)
            held += size
        if part:
            yield part

    def _text(self, key: str, document: Found) -> Text:
        if isinstance(document, dict):
            try:
                return full_text(document, self._corpus.fields), document
            except BadRecord as error:
                return BadRecord(error.code, f"document {shown(repr(key))} of {self._corpus.name}: {error}")
        return document or BadRecord("missing_document", _missing("document", key, self._corpus))

    def _records(self, listing: RunQuery, query: Found, texts: dict[str, Text]) -> Iterator[Record]:
        try:
            request = self._request(listing, query)
        except BadRecord as error:
            position = listing.row.position
            yield Rejection(position, error.code, str(error), listing.query_id, listing.row.excerpt())
            return
        candidates = []
        for entry in listing.entries:
            text = texts[key_of(entry.id)]
            if isinstance(text, BadRecord):
                yield _rejected(entry, listing, text)
            else:
                candidates.append(Candidate(*text, entry.id, entry.score))
        if candidates:
            yield replace(request, candidates=tuple(candidates))

    def _request(self, listing: RunQuery, query: Found) -> Request:
        """Without candidates yet. Raises BadRecord."""
        key, side = key_of(listing.query_id), self._queries
        if query is None:
            raise BadRecord("missing_query", _missing("query", key, side))
        try:
            if isinstance(query, BadRecord):
                raise query
            text = find_query(query, side.fields)
            instruction = first(query, INSTRUCTION)
            wanted = optional(instruction.value, str, instruction.name or "")
        except BadRecord as error:
            raise BadRecord(error.code, f"query {shown(repr(key))} of {side.name}: {error}") from None
        names = (text.name, first(query, side.fields.id).name, instruction.name)
        return Request(
            query=text.value,
            candidates=(),
            position=listing.row.position,
            id=listing.query_id,
            instruction=wanted,
            extra=without(query, names),
        )


def _batches(listings: Iterable[RunQuery | Rejection]) -> Iterator[list[RunQuery | Rejection]]:
    """Some thousand candidates at a time; what was read before the run breaks off comes before the error."""
    batch: list[RunQuery | Rejection] = []
    pairs = 0
    try:
        for listing in listings:
            batch.append(listing)
            pairs += len(listing.entries) if isinstance(listing, RunQuery) else 1
            if pairs >= _BATCH_PAIRS:
                full, batch, pairs = batch, [], 0
                yield full
    except InputError:
        yield batch
        raise
    yield batch


def _rejected(entry: Entry, listing: RunQuery, error: BadRecord) -> Rejection:
    position = replace(entry.row.position, place=listing.row.position.place)
    return Rejection(position, error.code, str(error), listing.query_id, entry.row.excerpt())


def _missing(what: str, key: str, side: Side) -> str:
    left_out = f"; {side.documents.left_out}" if side.documents.left_out else ""
    return f"{what} {shown(repr(key))} is not in {side.name} (it has {side.documents.index.count:,}{left_out})"
