"""Groups of ids: positives from judgements, negatives from a run, texts from queries and a corpus.

The groups hold ids; the texts of the drawn ones alone are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice

import orjson

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.building import open_corpus, open_in_memory
from rerank_cli.formats.corpus.documents import DocumentSource, Found
from rerank_cli.formats.corpus.files import Corpus
from rerank_cli.formats.corpus.texts import QUERY_TEXT
from rerank_cli.formats.options import ById, InputOptions
from rerank_cli.formats.reading.file_rows import FileRows, names_of
from rerank_cli.formats.reading.grouping import Grouping
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.reading.sorting import SortedRows
from rerank_cli.formats.runs.by_id import RunQuery, RunReader
from rerank_cli.formats.runs.files import open_run
from rerank_cli.formats.runs.qrels import Qrels
from rerank_cli.formats.shapes.documents import full_text
from rerank_cli.formats.shapes.fields import key_of, names_from
from rerank_cli.formats.shapes.groups import GroupFields, TrainingGroup, group_from
from rerank_cli.formats.shapes.requests import find_query
from rerank_cli.records import Json, Rejection
from rerank_cli.storage.opening import stamp_of
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.data.index import GroupIndex
from rerank_cli.training.data.rules import GroupCounts, GroupRules, Reject

_BATCH = 1000


class RunGroups:
    """Groups of a run, see `store.GroupStore`. Texts of `TrainingGroup` are ids until `texts` looks them up.

    Documents judged `min_relevance` or higher are positives, others of the run are negatives unless they are judged
    above 0. `unjudged` counts the queries without a positive, which are left out.
    """

    def __init__(
        self,
        options: InputOptions,
        given: ById,
        qrels: Qrels,
        min_relevance: int,
        rules: GroupRules,
        folder: str | None,
        reject: Reject,
        notify: Callable[[str], None],
    ) -> None:
        """Bad rows and ids without a text are passed to `reject`. Raises InputError."""
        names = names_from(options)
        self._query_names = names if options.query_field else replace(names, query=QUERY_TEXT)
        self._names = names
        self._rules = rules
        self._fields = GroupFields()
        self.counts = GroupCounts()
        self.unjudged = 0
        with ExitStack() as stack:
            queries = Corpus.of(given.queries, self._query_names.id, self._query_names.query)
            corpus = Corpus.of(given.corpus, names.doc_id, names.text)
            self.files = (*options.paths, *queries.files, *corpus.files)
            self._queries = open_in_memory(queries)
            stack.callback(self._queries.close)
            self._corpus = open_corpus(corpus, given.index_folder, notify)
            stack.callback(self._corpus.close)
            self.index = GroupIndex((), folder)
            stack.callback(self.index.close)
            for path, documents in ((given.queries, self._queries), (given.corpus, self._corpus)):
                if documents.left_out:
                    notify(f"{shown(path, 300)}: {documents.left_out}")
            self._sides = shown(given.queries, 300), shown(given.corpus, 300)
            with closing(_queries(options, given)) as found:
                self._add(found, qrels, min_relevance, reject)
            self.index.finish()
            self.close = stack.pop_all().close

    def group(self, place: int) -> TrainingGroup:
        """The group with ids in place of its texts."""
        return group_from(orjson.loads(self.index.read(place)), self._fields)

    def texts(self, drawn: Sequence[DrawnGroup]) -> list[DrawnGroup]:
        """The groups with the texts of their ids. Raises InputError for a document without a usable text."""
        queries = self._queries.find([group.query for group in drawn])
        documents = self._corpus.find([name for group in drawn for name in group.passages])
        asked = {name: _text(name, found, "query", self._sides[0], self._query) for name, found in queries.items()}
        texts = {
            name: _text(name, found, "document", self._sides[1], self._passage) for name, found in documents.items()
        }
        return [
            replace(group, query=asked[group.query], passages=tuple(texts[name] for name in group.passages))
            for group in drawn
        ]

    def _query(self, record: dict[str, Json]) -> str:
        return str(find_query(record, self._query_names).value)

    def _passage(self, record: dict[str, Json]) -> str:
        return full_text(record, self._names)

    def _add(self, found: Iterator[RunQuery | Rejection], qrels: Qrels, min_relevance: int, reject: Reject) -> None:
        while batch := list(islice(found, _BATCH)):
            for item in batch:
                if isinstance(item, Rejection):
                    reject(item)
            groups = [
                (item, group)
                for item in batch
                if isinstance(item, RunQuery) and (group := self._group(item, qrels, min_relevance))
            ]
            known = self._lengths(self._queries, [group.query for _, group in groups])
            documents = self._lengths(self._corpus, [name for _, group in groups for name in group.passages])
            for item, group in groups:
                self._keep(item, group, known, documents, reject)

    def _group(self, item: RunQuery, qrels: Qrels, min_relevance: int) -> TrainingGroup | None:
        """The group of a query, None if no document is judged relevant."""
        key = key_of(item.query_id)
        judged = qrels.get(key, {})
        positives = {name: grade for name, grade in judged.items() if grade >= min_relevance}
        if not positives:
            self.unjudged += 1
            return None
        names = (key_of(entry.id) for entry in item.entries)
        negatives = tuple(name for name in names if name not in positives and judged.get(name, 0) <= 0)
        grades = [1.0 if self._rules.unit_labels else float(grade) for grade in positives.values()]
        return TrainingGroup(key, tuple(positives), negatives, labels=(*grades, *(0.0 for _ in negatives)), id=key)

    def _keep(
        self,
        item: RunQuery,
        group: TrainingGroup,
        queries: Mapping[str, int],
        documents: Mapping[str, int],
        reject: Reject,
    ) -> None:
        """Add a group without the documents that the corpus lacks, each of which is rejected."""
        missing = [name for name in group.passages if not documents[name]]
        if not queries[group.query]:
            reject(self._lacking(item, "query", group.query, 0, self._queries))
            return
        for name in missing:
            reject(self._lacking(item, "document", name, 1, self._corpus))
        if missing:
            values = dict(zip(group.passages, group.labels or (), strict=True))
            positives, negatives = (
                tuple(name for name in names if documents[name]) for names in (group.positives, group.negatives)
            )
            labels = tuple(values[name] for name in (*positives, *negatives))
            group = replace(group, positives=positives, negatives=negatives, labels=labels)
        if not group.positives:
            return
        size = self._rules.size(queries[group.query], (documents[name] for name in group.passages))
        self.index.add_copy(group.as_record(), size)
        self.counts.add(group, self._rules)

    @staticmethod
    def _lengths(documents: DocumentSource, names: Sequence[str]) -> dict[str, int]:
        """The length in bytes of the line of each document, 0 if there is none."""
        return dict(zip(names, documents.sizes(names), strict=True)) if names else {}

    def _lacking(self, item: RunQuery, what: str, name: str, side: int, documents: DocumentSource) -> Rejection:
        left_out = f"; {documents.left_out}" if documents.left_out else ""
        count = f"it has {documents.count:,}{left_out}"
        message = f"{what} {shown(repr(name))} is not in {self._sides[side]} ({count})"
        return Rejection(item.row.position, f"missing_{what}", message, item.query_id, item.row.excerpt())


def _queries(options: InputOptions, given: ById) -> Generator[RunQuery | Rejection]:
    """The queries of the runs with their candidates. Raises InputError for a stream."""
    stamps = [stamp_of(path) for path in options.paths]
    for path, stamp in zip(options.paths, stamps, strict=True):
        if stamp is None:
            raise InputError(f"{shown(path, 300)}: cannot be read more than once. Fix: save it to a file")
    mapped = [(name,) if name else () for name in (options.id_field, options.doc_id_field)]
    reader = RunReader(given.depth, *mapped)
    files = FileRows(options.paths, stamps, lambda path, start: open_run(path, options, reader, start))
    with closing(files):
        rows = files.rows()
        if options.sort:
            rows = SortedRows(len(options.paths)).rows(rows, reader.key_of)
        yield from Grouping(reader, QueryLog(), names_of(options.paths)).records(rows)


def _text(name: str, found: Found, what: str, side: str, text_of: Callable[[dict[str, Json]], str]) -> str:
    """Raises InputError if there is no usable text."""
    try:
        if isinstance(found, dict):
            return text_of(found)
        raise found or BadRecord(f"missing_{what}", "it is not there any more")
    except BadRecord as error:
        raise InputError(f"{what} {shown(repr(name))} of {side}: {error}") from None
