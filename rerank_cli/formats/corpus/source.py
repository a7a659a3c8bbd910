"""A source of requests whose parts stand in three places: a run has ids of candidates, queries and a corpus have texts.

One request a query, in the order of the run. The run is read as a stream, the corpus where its lines are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.formats.corpus.addressing import Wanted
from rerank_cli.formats.corpus.building import Corpus, open_corpus, open_in_memory
from rerank_cli.formats.corpus.files import corpus_files, steady_stamp
from rerank_cli.formats.corpus.joining import Join, Side
from rerank_cli.formats.options import STREAM, ArrowSchema, ById, Committed, InputOptions, Stamp
from rerank_cli.formats.reading.file_rows import FileRows, names_of
from rerank_cli.formats.reading.grouping import Grouping
from rerank_cli.formats.reading.inputs import Input
from rerank_cli.formats.reading.query_log import SeenQueries
from rerank_cli.formats.reading.sorting import SortedRows
from rerank_cli.formats.runs.by_id import RunReader
from rerank_cli.formats.runs.files import open_run
from rerank_cli.formats.shapes.fields import DOC_ID, QUERY_ID, TEXT, Names
from rerank_cli.records import Place, Record, Shape
from rerank_cli.storage.opening import stamp_of

_QUERY_TEXT = ("text", "query", "query.text", "question", "q")


def open_by_id(options: InputOptions, given: ById, notify: Callable[[str], None]) -> ByIdSource:
    """Open everything, make the index if need be, and look at the run. Raises InputError, UsageError or OutputError."""
    if options.shape is not None or options.documents_field is not None:
        raise UsageError("--shape and --documents-field are for files that hold their texts, not for --run")
    if options.paths.count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    query_names = Names(_or(options.query_field, _QUERY_TEXT), id=_or(options.id_field, QUERY_ID))
    names = Names(text=_or(options.text_field, TEXT), doc_id=_or(options.doc_id_field, DOC_ID))
    runs = [stamp_of(path) for path in options.paths]
    queries = _corpus(given.queries, Wanted(query_names.id, query_names.query))
    corpus = _corpus(given.corpus, Wanted(names.doc_id, names.text))
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
        source = ByIdSource(
            options, given, join, [*queries.files, *corpus.files], [*queries.stamps, *corpus.stamps, *runs]
        )
        stack.callback(source.close)
        source.look()
        stack.pop_all()
    return source


def side_files(given: ById) -> tuple[str, ...]:
    """The files of the queries, then those of the corpus."""
    return corpus_files(given.queries) + corpus_files(given.corpus)


class ByIdSource:
    """See `Source`. In places and among the stamps, runs stand behind the files that the texts are in."""

    def __init__(
        self, options: InputOptions, given: ById, join: Join, texts: Sequence[str], stamps: Sequence[Stamp | None]
    ) -> None:
        self.shape = Shape.RERANK
        self.columns: ArrowSchema | None = None
        self.stamps = stamps
        self._values = given.values
        self._join = join
        self._files = FileRows(options.paths, stamps[len(texts) :], self._open, len(texts))
        self._names = names_of([*texts, *options.paths])
        self._reader = RunReader(given.depth, _or(options.id_field, ()), _or(options.doc_id_field, ()))
        self._seen = SeenQueries()
        self._sorted = SortedRows(len(stamps) - 1) if options.sort else None
        self._rows = self._files.rows()

    @property
    def description(self) -> str:
        """What is read, in one phrase."""
        how = ", sorted" if self._sorted else ""
        return f"{self._files.kind or 'an empty run'}{how}, {self._join.description}"

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the runs on disk, None if one of them has no size."""
        return self._files.total_bytes

    @property
    def bytes_read(self) -> int:
        return self._sorted.share_of(self._files.taken) if self._sorted else self._files.taken

    def look(self) -> None:
        """Open the first run, keeping the row that it took."""
        first = list(islice(self._rows, 1))
        self._rows = chain(first, self._rows)

    def go_to(self, start: Place, records: int, shape: Shape | None, kept: Committed | None) -> bool:  # noqa: ARG002
        """See `Source`."""
        if None in self.stamps or not (self._sorted or (kept and self._seen.take_up(kept))):
            return False
        self._rows = self._files.rows(None if self._sorted else start)
        if self._sorted:
            self._sorted.begin_at(start)
        return True

    def keep_memory_in(self, path: Path) -> None:
        """See `Source`."""
        if not self._sorted:
            self._seen.keep_in(path)

    def sync(self) -> Committed | None:
        """See `Source`."""
        return self._seen.sync()

    def __iter__(self) -> Iterator[Record]:
        rows = self._sorted.rows(self._rows, self._reader.key_of) if self._sorted else self._rows
        return self._join.records(Grouping(self._reader, self._seen, self._names).records(rows))

    def close(self) -> None:
        """Close what is open; to be called from any state, also more than once."""
        self._files.close()
        self._join.close()

    def _open(self, path: str, start: Place) -> Input:
        return open_run(path, self._values, self._reader, start)


def _corpus(path: str, wanted: Wanted) -> Corpus:
    files = corpus_files(path)
    return Corpus(path, files, tuple(steady_stamp(file) for file in files), wanted)


def _or(name: str | None, table: tuple[str, ...]) -> tuple[str, ...]:
    return (name,) if name else table
