"""Queries and candidates of a run, named by id, to requests: texts are looked up for many queries at a time.

A candidate that the corpus lacks, or has without a usable text, becomes a Rejection before its query's request, which
has the other candidates. A query without a usable text becomes one Rejection. All have the query's place in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from rerank_cli.display import counted, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.documents import DocumentSource, Found
from rerank_cli.formats.reading.grouping import Grouping
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.runs.by_id import RunQuery, RunReader
from rerank_cli.formats.shapes.documents import full_text
from rerank_cli.formats.shapes.fields import INSTRUCTION, Names, first, key_of, without
from rerank_cli.formats.shapes.request_options import instruction_of
from rerank_cli.formats.shapes.requests import find_query
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Candidate, Json, Place, Position, Record, Rejection, Request, Shape

_BATCH_PAIRS = 4096
_BATCH_BYTES = 64 << 20
_AFTER_ROWS = 1 << 47  # a number of rows that no file has

Text = tuple[str, Json] | BadRecord
"""A candidate's text and its document."""


@dataclass(frozen=True, slots=True)
class Side:
    """The queries or the corpus: its name in messages, its documents and their field names."""

    name: str
    documents: DocumentSource
    fields: Names

    def lacks(self, what: str, key: str) -> BadRecord:
        left_out = f"; {self.documents.left_out}" if self.documents.left_out else ""
        count = f"it has {self.documents.count:,}{left_out}"
        return BadRecord(f"missing_{what}", f"{what} {shown(repr(key))} is not in {self.name} ({count})")


class RunRecords:
    """A `RecordReader` of runs. `paths` are the names of all files, those of queries and corpus first.

    `unlisted` chooses the queries that are answered without candidates if no row names them: by id as text; None: none.
    """

    grouped = True
    one_by_one = False

    def __init__(
        self,
        queries: Side,
        corpus: Side,
        reader: RunReader,
        paths: Sequence[str],
        require_candidates: bool = False,
        unlisted: Callable[[str], bool] | None = None,
    ) -> None:
        self.shape: Shape | None = Shape.RERANK
        self.remembers = unlisted is not None
        self._unlisted = unlisted
        self._ids_are_text = True
        self._require_candidates = require_candidates
        self._queries = queries
        self._corpus = corpus
        self._reader = reader
        self._paths = paths
        self.key_of = reader.key_of

    def describe(self, kind: str, how: str) -> str:
        queries, documents = (side.documents.count for side in (self._queries, self._corpus))
        texts = f"{counted(queries, 'query')} and {counted(documents, 'document')} by id"
        return f"{kind or 'an empty run'}{how}, {texts}"

    def look(self, rows: Iterator[Row | Rejection]) -> Iterator[Row | Rejection]:
        """Reads the first row, which opens the first file. A run without any row is an empty input."""
        begin = list(islice(rows, 1))
        if not begin:
            self._unlisted = None
        elif isinstance(begin[0], Row):
            self._ids_are_text = not isinstance(self._reader.id_of(begin[0]), int)
        return chain(begin, rows)

    def close(self) -> None:
        self._queries.documents.close()
        self._corpus.documents.close()

    def records(self, rows: Iterator[Row | Rejection], seen: QueryLog, first: int) -> Iterator[Record]:  # noqa: ARG002
        """See `RecordReader`. Every query has an id, so `first` is not used. The batch sizes do not change records."""
        for batch in _batches(self._groups(rows, seen)):
            for part in self._parts(batch):
                listed = [item for item in part if isinstance(item, RunQuery)]
                queries = self._queries.documents.find([key_of(item.query_id) for item in listed])
                found = self._corpus.documents.find([key_of(e.id) for item in listed for e in item.entries])
                texts = {key: self._text(key, document) for key, document in found.items()}
                for item in part:
                    if isinstance(item, Rejection):
                        yield item
                    else:
                        yield from self._records(item, queries[key_of(item.query_id)], texts)
        if self._unlisted:
            yield from self._not_listed(self._unlisted, seen)

    def _groups(self, rows: Iterator[Row | Rejection], seen: QueryLog) -> Iterator[RunQuery | Rejection]:
        """The queries of the run. Those of bad rows are kept in `seen` too, under keys of their own."""
        for item in Grouping(self._reader, seen, self._paths).records(rows):
            if self._unlisted and isinstance(item, Rejection) and item.id is not None:
                seen.first((True, key_of(item.id)), item.position.place or Place())
            yield item

    def _not_listed(self, wanted: Callable[[str], bool], seen: QueryLog) -> Iterator[Record]:
        """A record without candidates for each of the wanted queries that no row names, in the order of their files.

        All have one place, after the rows, from which they are found again.
        """
        place = Place(len(self._paths), _AFTER_ROWS)
        missing = (
            query
            for query in self._queries.documents.listed()
            if wanted(query.key) and (False, query.key) not in seen and (True, query.key) not in seen
        )
        while batch := list(islice(missing, _BATCH_PAIRS)):
            found = self._queries.documents.find([query.key for query in batch])
            for key, path, line in batch:
                record = found[key]
                name = first(record, self._queries.fields.id).value if isinstance(record, dict) else key
                query_id = key if self._ids_are_text else name
                yield from self._records(RunQuery(query_id, (), Row(Position(path, line, place), record)), record, {})

    def _parts(self, batch: list[RunQuery | Rejection]) -> Iterator[list[RunQuery | Rejection]]:
        """The batch in parts of at most `_BATCH_BYTES` of documents, or one query."""
        keys = [key_of(e.id) for item in batch if isinstance(item, RunQuery) for e in item.entries]
        sizes = iter(self._corpus.documents.sizes(keys))
        part: list[RunQuery | Rejection] = []
        total = 0
        for item in batch:
            size = sum(next(sizes) for _ in item.entries) if isinstance(item, RunQuery) else 0
            if part and total + size > _BATCH_BYTES:
                yield part
                part, total = [], 0
            part.append(item)
            total += size
        if part:
            yield part

    def _text(self, key: str, document: Found) -> Text:
        if isinstance(document, dict):
            try:
                return full_text(document, self._corpus.fields), document
            except BadRecord as error:
                return BadRecord(error.code, f"document {shown(repr(key))} of {self._corpus.name}: {error}")
        return document or self._corpus.lacks("document", key)

    def _records(self, item: RunQuery, query: Found, texts: dict[str, Text]) -> Iterator[Record]:
        start = item.row.position
        try:
            request = self._request(item, query)
            if self._require_candidates and not item.entries:
                raise BadRecord("no_candidates", "the query has no candidates in the run (expected at least one)")
        except BadRecord as error:
            yield Rejection(start, error.code, str(error), item.query_id, item.row.excerpt())
            return
        candidates = []
        for entry in item.entries:
            text = texts[key_of(entry.id)]
            if isinstance(text, BadRecord):
                position = replace(entry.row.position, place=start.place)
                yield Rejection(position, text.code, str(text), item.query_id, entry.row.excerpt())
            else:
                candidates.append(Candidate(*text, entry.id, entry.score))
        if candidates or not item.entries:
            yield replace(request, candidates=tuple(candidates))

    def _request(self, item: RunQuery, query: Found) -> Request:
        """The request without candidates. Raises BadRecord."""
        key, fields = key_of(item.query_id), self._queries.fields
        if query is None:
            raise self._queries.lacks("query", key)
        try:
            if isinstance(query, BadRecord):
                raise query
            text = find_query(query, fields)
            wanted = instruction_of(query)
        except BadRecord as error:
            raise BadRecord(error.code, f"query {shown(repr(key))} of {self._queries.name}: {error}") from None
        return Request(
            query=text.value,
            candidates=(),
            position=item.row.position,
            id=item.query_id,
            instruction=wanted,
            extra=without(query, (text.name, first(query, fields.id).name, first(query, INSTRUCTION).name)),
        )


def _batches(items: Iterable[RunQuery | Rejection]) -> Iterator[list[RunQuery | Rejection]]:
    """Batches of about `_BATCH_PAIRS` candidates; what was read before an InputError is yielded before it is raised."""
    batch: list[RunQuery | Rejection] = []
    pairs = 0
    try:
        for item in items:
            batch.append(item)
            pairs += len(item.entries) if isinstance(item, RunQuery) else 1
            if pairs >= _BATCH_PAIRS:
                full, batch, pairs = batch, [], 0
                yield full
    except InputError:
        yield batch
        raise
    yield batch
