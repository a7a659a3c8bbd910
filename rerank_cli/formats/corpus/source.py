"""A source of requests whose texts are looked up by id: a run names candidates, queries and a corpus have the texts.

One request per query, in run order, then one for each query that the run does not name, if these are asked for. The
run is read as a stream, queries and corpus at random offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.formats.corpus.building import open_corpus, open_in_memory
from rerank_cli.formats.corpus.files import Corpus, corpus_files
from rerank_cli.formats.corpus.first_stage import make_run
from rerank_cli.formats.corpus.joining import RunRecords, Side
from rerank_cli.formats.corpus.texts import QUERY_TEXT
from rerank_cli.formats.options import ById, InputOptions
from rerank_cli.formats.reading.file_rows import FileRows, names_of
from rerank_cli.formats.reading.sources import RowSource
from rerank_cli.formats.runs.by_id import RunReader
from rerank_cli.formats.runs.files import open_run
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.shapes.fields import names_from
from rerank_cli.storage.opening import stamp_of
from rerank_cli.storage.paths import STREAM


def open_by_id(options: InputOptions, given: ById, notify: Callable[[str], None]) -> RowSource:
    """Open all files, build the index if needed, read the first row. Raises InputError, UsageError or OutputError."""
    if options.shape is not None or options.documents_field is not None:
        raise UsageError("--shape and --documents-field are for inputs with texts, not for --run")
    if options.query is not None or options.score_field is not None:
        raise UsageError("--query and --score-field are for inputs with texts, not for --run")
    if options.paths.count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    names = names_from(options)
    stage = given.first_stage
    judged = read_qrels(given.judged) if given.judged and (given.answer_unlisted or stage) else None
    wanted: Callable[[str], bool] = judged.__contains__ if judged else lambda _: True
    query_names = names if options.query_field else replace(names, query=QUERY_TEXT)
    queries = Corpus.of(given.queries, query_names.id, query_names.query)
    corpus = Corpus.of(given.corpus, names.doc_id, names.text)
    with ExitStack() as stack:
        query_side = Side(shown(given.queries, 300), open_in_memory(queries), query_names)
        stack.callback(query_side.documents.close)
        corpus_side = Side(shown(given.corpus, 300), open_corpus(corpus, given.index_folder, notify), names)
        stack.callback(corpus_side.documents.close)
        for side in (query_side, corpus_side):
            if side.documents.left_out:
                notify(f"{side.name}: {side.documents.left_out}")
        judgements = [stamp_of(given.judged)] if given.judged else []
        if stage:
            made_from = [queries.identity, corpus.identity, judgements]
            make_run(options.paths[0], given, stage, (query_side, corpus_side), made_from, wanted, notify)
        runs = [stamp_of(path) for path in options.paths]
        stack.pop_all()
    paths = side_files(given)
    stamps = [*queries.stamps, *corpus.stamps, *judgements, *([] if stage else runs)]
    mapped = [(name,) if name else () for name in (options.id_field, options.doc_id_field)]
    reader = RunReader(given.depth, *mapped)
    files = FileRows(options.paths, runs, lambda path, start: open_run(path, options, reader, start), len(paths))
    names_shown = names_of([*paths, *options.paths])
    unlisted = wanted if given.answer_unlisted else None
    records = RunRecords(query_side, corpus_side, reader, names_shown, options.require_candidates, unlisted)
    return RowSource(files, records, stamps, options.sort)


def side_files(given: ById) -> tuple[str, ...]:
    """The files of the queries, those of the corpus, and the judgements that choose queries."""
    return corpus_files(given.queries) + corpus_files(given.corpus) + ((given.judged,) if given.judged else ())
