"""A source of requests whose parts stand in three places: a run has ids of candidates, queries and a corpus have texts.

One request a query, in the order of the run. The run is read as a stream, the corpus where its lines are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.formats.corpus.addressing import Wanted
from rerank_cli.formats.corpus.building import Corpus, open_corpus, open_in_memory
from rerank_cli.formats.corpus.files import corpus_files
from rerank_cli.formats.corpus.joining import Join, Side
from rerank_cli.formats.corpus.texts import QUERY_TEXT
from rerank_cli.formats.options import ById, InputOptions
from rerank_cli.formats.reading.file_rows import FileRows, Input, names_of
from rerank_cli.formats.reading.grouping import Grouping
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.reading.sources import RowSource
from rerank_cli.formats.runs.by_id import RunReader
from rerank_cli.formats.runs.files import open_run
from rerank_cli.formats.shapes.fields import DOC_ID, QUERY_ID, TEXT, Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Record, Rejection, Shape
from rerank_cli.storage.opening import stamp_of
from rerank_cli.storage.paths import STREAM


def open_by_id(options: InputOptions, given: ById, notify: Callable[[str], None]) -> RowSource:
    """Open everything, make the index if need be, and look at the run. Raises InputError, UsageError or OutputError."""
    if options.shape is not None or options.documents_field is not None:
        raise UsageError("--shape and --documents-field are for files that hold their texts, not for --run")
    if options.paths.count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    query_names = Names(_or(options.query_field, QUERY_TEXT), id=_or(options.id_field, QUERY_ID))
    names = Names(text=_or(options.text_field, TEXT), doc_id=_or(options.doc_id_field, DOC_ID))
    runs = [stamp_of(path) for path in options.paths]
    queries = Corpus.of(given.queries, Wanted(query_names.id, query_names.query))
    corpus = Corpus.of(given.corpus, Wanted(names.doc_id, names.text))
    with ExitStack() as stack:
        of_queries = open_in_memory(queries)
        stack.callback(of_queries.close)
        of_corpus = open_corpus(corpus, given.index_folder, notify)
        stack.callback(of_corpus.close)
        for side, documents in ((queries, of_queries), (corpus, of_corpus)):
            if documents.left_out:
                notify(f"{shown(side.path, 300)}: {documents.left_out}")
        join = Join(
            Side(shown(given.queries, 300), of_queries, query_names), Side(shown(given.corpus, 300), of_corpus, names)
        )
        stack.pop_all()
    paths, stamps = [*queries.files, *corpus.files], [*queries.stamps, *corpus.stamps, *runs]
    reader = RunReader(given.depth, _or(options.id_field, ()), _or(options.doc_id_field, ()))

    def opened(path: str, start: Place) -> Input:
        return open_run(path, given.values, reader, start)

    files = FileRows(options.paths, runs, opened, len(paths))
    records = RunRecords(join, reader, names_of([*paths, *options.paths]))
    return RowSource(files, records, stamps, options.sort)


def side_files(given: ById) -> tuple[str, ...]:
    """The files of the queries, then those of the corpus."""
    return corpus_files(given.queries) + corpus_files(given.corpus)


class RunRecords:
    """The requests that a run names by ids, see `RecordReader`. `paths` names the files, those of texts first."""

    grouped = True

    def __init__(self, join: Join, reader: RunReader, paths: Sequence[str]) -> None:
        self.shape: Shape | None = Shape.RERANK
        self._join = join
        self._reader = reader
        self._paths = paths
        self.key_of = reader.key_of
        self.close = join.close

    def describe(self, kind: str, how: str) -> str:
        return f"{kind or 'an empty run'}{how}, {self._join.description}"

    def look(self, rows: Iterator[Row | Rejection]) -> Iterator[Row | Rejection]:
        """Read the first row: then the first file is open."""
        return chain(list(islice(rows, 1)), rows)

    def records(self, rows: Iterator[Row | Rejection], seen: QueryLog, first: int) -> Iterator[Record]:  # noqa: ARG002
        """See `RecordReader`; every record has an id."""
        return self._join.records(Grouping(self._reader, seen, self._paths).records(rows))


def _or(name: str | None, table: tuple[str, ...]) -> tuple[str, ...]:
    return (name,) if name else table
