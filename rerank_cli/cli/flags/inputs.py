"""Flags of the input: files of queries with their candidates, or a run of ids and the files with the texts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import typer

from rerank_cli.choices import RunValues
from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import moved
from rerank_cli.cli.streams import require_input
from rerank_cli.errors import UsageError
from rerank_cli.records import Shape

if TYPE_CHECKING:
    from rerank_cli.formats import InputOptions

flag = partial(declare.flag, panel=declare.INPUT)
by_id = partial(declare.flag, panel=declare.BY_ID)


def given(
    inputs: list[str] | None = typer.Argument(None, metavar="INPUT", help="Files to read; - or nothing is stdin."),
    shape: Shape | None = flag(None, "Shape of the records [default: by the first record]."),
    query_field: str | None = flag(None, "Field of the query; a dotted path reaches into objects.", "FIELD"),
    documents_field: str | None = flag(None, "Field of the list of candidates.", "FIELD"),
    text_field: str | None = flag(None, "Field of a candidate's text.", "FIELD"),
    id_field: str | None = common.ID_FIELD,
    doc_id_field: str | None = common.DOC_ID_FIELD,
    sort: bool = flag(False, "Group rows of pairs, or of --run, by query first: they may be in any order."),
    run: list[str] | None = by_id(None, "Run of ids: TREC, MTEB, MS MARCO or BEIR (may be repeated).", "RUN"),
    queries: str | None = by_id(None, "Texts of the queries: JSONL, TSV or Parquet.", "FILE"),
    corpus: str | None = by_id(None, "Texts of the candidates: a JSONL, TSV or Parquet file, or a folder.", "PATH"),
    beir: str | None = by_id(None, "Folder in BEIR's layout, with queries and corpus.", "DIR"),
    split: str | None = by_id(None, "Split of --beir [default: test].", "NAME"),
    depth: int | None = by_id(None, "Take the first K candidates of each query of --run.", "K", min=1),
    run_values: RunValues | None = by_id(None, "What the third of three columns of --run is [default: auto]."),
    index_dir: str | None = moved(common.INDEX_DIR, declare.BY_ID),
) -> InputOptions:
    """The input as InputOptions. Raises UsageError for flags that exclude each other."""
    from rerank_cli.formats import ById, InputOptions
    from rerank_cli.formats.corpus.files import beir_folder

    if split and not beir:
        raise UsageError("--split needs --beir DIR")
    ids = None
    if run:
        if inputs:
            raise UsageError(f"INPUT and --run were both given (got {inputs[0]}). Fix: give one of them")
        folder = beir_folder(beir, split or "test") if beir else None
        queries = queries or (folder.queries if folder else None)
        corpus = corpus or (folder.corpus if folder else None)
        for name, path in (("--queries FILE", queries), ("--corpus PATH", corpus)):
            if not path:
                raise UsageError(f"--run {run[0]}: has only ids, and the texts are missing. Fix: {name}, or --beir DIR")
        ids = ById(str(queries), str(corpus), depth, run_values or RunValues.AUTO, index_dir)
    else:
        flags = {"--queries": queries, "--corpus": corpus, "--beir": beir, "--depth": depth}
        for name, value in (flags | {"--run-values": run_values, "--index-dir": index_dir}).items():
            if value is not None:
                raise UsageError(f"{name} needs --run RUN")
    paths = tuple(run) if run else require_input(inputs)
    return InputOptions(
        paths, shape, query_field, documents_field, text_field, id_field, doc_id_field, sort=sort, by_id=ids
    )
