"""Flags for what is read: files of queries with their candidates, or a run of ids and the files that have the texts."""

from __future__ import annotations

from typing import Annotated

import typer

from rerank_cli.cli import options as opt
from rerank_cli.cli.streams import require_input
from rerank_cli.errors import UsageError
from rerank_cli.formats import BeirFolder, ById, InputOptions, RunValues, beir_folder


def given(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT", help="Files to read; - or none is stdin.")
    ] = None,
    run: Annotated[
        list[str] | None,
        opt.flag("--run", metavar="RUN", help="Candidates by id: TREC, MTEB, MS MARCO or BEIR (may be given again)."),
    ] = None,
    queries: Annotated[
        str | None, opt.flag("--queries", metavar="FILE", help="Texts of the queries: JSONL, TSV or Parquet.")
    ] = None,
    corpus: Annotated[
        str | None,
        opt.flag("--corpus", metavar="PATH", help="Texts of the candidates: JSONL, TSV, Parquet or a folder of them."),
    ] = None,
    beir: Annotated[
        str | None, opt.flag("--beir", metavar="DIR", help="Folder in BEIR's layout: its queries and its corpus.")
    ] = None,
    split: Annotated[str, opt.flag("--split", metavar="NAME", help="Which part of --beir.")] = "test",
    depth: Annotated[
        int | None, opt.flag("--depth", metavar="K", min=1, help="The first K candidates of each query in --run.")
    ] = None,
    run_values: Annotated[
        RunValues, opt.flag("--run-values", help="What the third of three columns in --run is.")
    ] = RunValues.AUTO,
    index_dir: Annotated[
        str | None,
        opt.flag("--index-dir", metavar="DIR", help="Keep the index of a large corpus here [default: beside it]."),
    ] = None,
    sort: Annotated[
        bool, opt.flag("--sort", help="Rows of pairs, or of --run, stand in any order: group them by query first.")
    ] = False,
    shape: opt.InputShape = None,
    query_field: opt.QueryField = None,
    documents_field: opt.DocumentsField = None,
    text_field: opt.TextField = None,
    id_field: opt.IdField = None,
    doc_id_field: opt.DocIdField = None,
) -> InputOptions:
    """What is read, as InputOptions; a usage error for flags that do not go together."""
    by_id = None
    if run:
        folder = beir_folder(beir, split) if beir else None
        by_id = _by_id(run, inputs, queries, corpus, folder, depth, run_values, index_dir)
    else:
        _refuse({"--queries": queries, "--corpus": corpus, "--beir": beir, "--depth": depth, "--index-dir": index_dir})
    return InputOptions(
        tuple(run) if run else require_input(inputs),
        shape=shape,
        query_field=query_field,
        documents_field=documents_field,
        text_field=text_field,
        id_field=id_field,
        doc_id_field=doc_id_field,
        sort=sort,
        by_id=by_id,
    )


def _by_id(
    run: list[str],
    inputs: list[str] | None,
    queries: str | None,
    corpus: str | None,
    folder: BeirFolder | None,
    depth: int | None,
    values: RunValues,
    index_folder: str | None,
) -> ById:
    if inputs:
        raise UsageError(f"INPUT and --run were both given (got {inputs[0]}). Fix: the one or the other")
    queries = queries or (folder.queries if folder else None)
    corpus = corpus or (folder.corpus if folder else None)
    for flag, value in (("--queries FILE", queries), ("--corpus PATH", corpus)):
        if not value:
            raise UsageError(f"--run {run[0]}: it holds ids, and the texts are missing. Fix: {flag}, or --beir DIR")
    return ById(str(queries), str(corpus), depth, values, index_folder)


def _refuse(flags: dict[str, object]) -> None:
    for flag, value in flags.items():
        if value is not None:
            raise UsageError(f"{flag} goes with --run, and there is none. Fix: --run RUN")
