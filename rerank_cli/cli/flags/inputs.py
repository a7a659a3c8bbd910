"""Flags of the input: files of queries with their candidates, or a run of ids and the files with the texts."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import typer

from rerank_cli.choices import Bm25Language, FirstStage, InputFormat, RunValues
from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import moved
from rerank_cli.cli.terminal.streams import require_input
from rerank_cli.errors import UsageError
from rerank_cli.records import Shape

if TYPE_CHECKING:
    from rerank_cli.formats import InputOptions
    from rerank_cli.formats.options import Bm25

flag = partial(declare.flag, panel=declare.INPUT)
by_id = partial(declare.flag, panel=declare.BY_ID)


def given(
    inputs: list[str] | None = typer.Argument(
        None, metavar="INPUT", help="Files or patterns, local or remote; folders with -o DIR/; - or nothing is stdin."
    ),
    input_format: InputFormat = flag(InputFormat.AUTO, "Format of INPUT or --run, where it is not recognised."),
    shape: Shape | None = flag(None, "Shape of the records [default: by the first record]."),
    query_field: str | None = flag(None, "Field of the query; a dotted path reaches into objects.", "FIELD"),
    documents_field: str | None = flag(None, "Field of the list of candidates.", "FIELD"),
    text_field: str | None = flag(None, "Field of the candidate's text; several are joined with spaces.", "F[,F]"),
    text_template: str | None = flag(None, "Text of a candidate, of its fields, like '{title}\\n{body}'.", "TEMPLATE"),
    title_field: str | None = flag(None, "Field of a candidate's title, set before its text.", "FIELD"),
    score_field: str | None = flag(None, "Field of a candidate's first-stage score; more is better.", "FIELD"),
    id_field: str | None = common.ID_FIELD,
    doc_id_field: str | None = common.DOC_ID_FIELD,
    query: str | None = flag(None, "The query of one response, or of rows, that have none of their own.", "TEXT"),
    require_candidates: bool = flag(False, "A query without candidates is a bad record, not an empty answer."),
    sort: bool = flag(False, "Group rows of pairs, or of --run, by query first: they may be in any order."),
    run: list[str] | None = by_id(None, "Run of ids: TREC, MTEB, MS MARCO or BEIR (may be repeated).", "RUN"),
    queries: str | None = by_id(None, "Texts of the queries: JSONL, CSV, Parquet or the like.", "FILE"),
    corpus: str | None = by_id(None, "Texts of the candidates: a file like --queries, or a folder.", "PATH"),
    beir: str | None = by_id(None, "Folder in BEIR's layout, with queries and corpus.", "DIR"),
    split: str | None = by_id(None, "Split of --beir [default: test].", "NAME"),
    first_stage: FirstStage | None = by_id(
        None, "Find the candidates in --corpus or --beir, in place of --run; needs the extra bm25."
    ),
    bm25_k1: float | None = by_id(None, "How much repetitions of a word count [default: 0.9].", "X", min=0),
    bm25_b: float | None = by_id(
        None, "How much the length of a document counts, 0 to 1 [default: 0.4].", "X", min=0, max=1
    ),
    bm25_language: Bm25Language | None = by_id(
        None, "Whose stop words are left out and words stemmed, or none [default: english].", "LANGUAGE"
    ),
    dataset: str | None = by_id(
        None, "Set of ir_datasets, with queries, corpus and often judgements and a run; needs the extra datasets.", "ID"
    ),
    depth: int | None = by_id(
        None,
        "The first K candidates of each query of --run [default: all] or --first-stage [default: 100].",
        "K",
        min=1,
    ),
    skip_unlisted: bool = by_id(False, "Do not answer queries of --queries or --split that --run does not name."),
    run_values: RunValues | None = by_id(None, "What the third of three columns of --run is [default: auto]."),
    index_dir: str | None = moved(common.INDEX_DIR, declare.BY_ID),
) -> InputOptions:
    """The input as InputOptions, with its field names checked. Raises UsageError for flags that exclude each other."""
    from rerank_cli.formats import ById, InputOptions
    from rerank_cli.formats.corpus.dataset import dataset_files
    from rerank_cli.formats.corpus.files import beir_folder
    from rerank_cli.formats.corpus.first_stage import temporary_run
    from rerank_cli.formats.shapes.fields import names_from
    from rerank_cli.storage.listing import expanded

    if split and not beir:
        raise UsageError("--split needs --beir DIR")
    stage = _first_stage(first_stage, bm25_k1, bm25_b, bm25_language, depth)
    if stage:
        for name, used in (("--run", run), ("--run-values", run_values), ("--sort", sort)):
            if used:
                raise UsageError(f"{name} does not go with --first-stage, which makes its own run. Fix: one of them")
        if input_format is not InputFormat.AUTO:
            raise UsageError("--input-format is for INPUT or --run, not for --first-stage")
    ids, qrels = None, None
    if dataset:
        for name, path in (("--queries", queries), ("--corpus", corpus), ("--beir", beir), ("--index-dir", index_dir)):
            if path is not None:
                raise UsageError(f"{name} does not go with --dataset, which has queries and corpus. Fix: one of them")
        if inputs:
            raise UsageError(f"INPUT and --dataset were both given (got {inputs[0]}). Fix: give one of them")
        files = dataset_files(dataset, texts=True, run=not (run or stage), judged=True)
        queries, corpus, qrels = files.queries, files.corpus, files.qrels or None
        run = run or ([files.run] if files.run else None)
    source = f"--run {run[0]}" if run else "--first-stage"
    if run or stage:
        if inputs:
            name = source.partition(" ")[0]
            raise UsageError(f"INPUT and {name} were both given (got {inputs[0]}). Fix: give one of them")
        folder = beir_folder(beir, split or "test") if beir else None
        # The queries of a BEIR folder are those of all splits, unless a split has its own file.
        own = bool(queries or (folder and folder.has_own_queries))
        qrels = folder.qrels if folder else qrels
        judged = qrels if stage or (split and not skip_unlisted) else None
        judged = None if own else judged
        queries = queries or (folder.queries if folder else None)
        corpus = corpus or (folder.corpus if folder else None)
        for name, path in (("--queries FILE", queries), ("--corpus PATH", corpus)):
            if not path:
                what = "has only ids, and the texts are missing" if run else "the texts are missing"
                raise UsageError(f"{source}: {what}. Fix: {name}, or --beir DIR")
        ids = ById(
            str(queries),
            str(corpus),
            depth,
            run_values or RunValues.AUTO,
            index_dir,
            answer_unlisted=not skip_unlisted and bool(judged or own or stage),
            judged=judged,
            first_stage=stage,
            qrels=qrels,
        )
    else:
        flags = {"--queries": queries, "--corpus": corpus, "--beir": beir, "--depth": depth}
        for name, value in (flags | {"--run-values": run_values, "--index-dir": index_dir}).items():
            if value is not None:
                other = "" if name == "--run-values" else " or --first-stage bm25"
                raise UsageError(f"{name} needs --run RUN{other}")
        if skip_unlisted:
            raise UsageError("--skip-unlisted needs --run RUN or --first-stage bm25")
    paths = (temporary_run(),) if stage else expanded(run or require_input(inputs))
    options = InputOptions(
        paths,
        shape,
        query_field,
        documents_field,
        text_field,
        id_field,
        doc_id_field,
        sort=sort,
        by_id=ids,
        text_template=text_template,
        title_field=title_field,
        score_field=score_field,
        query=query,
        require_candidates=require_candidates,
        format=input_format,
    )
    names_from(options)
    return options


def _first_stage(
    wanted: FirstStage | None, k1: float | None, b: float | None, language: Bm25Language | None, depth: int | None
) -> Bm25 | None:
    """Raises UsageError for parameters without a first stage."""
    from rerank_cli.formats.options import Bm25

    given = {"k1": k1, "b": b, "language": language}
    if wanted is None:
        for name, value in given.items():
            if value is not None:
                raise UsageError(f"--bm25-{name} needs --first-stage bm25")
        return None
    for name, number in (("k1", k1), ("b", b)):
        if number is not None and not math.isfinite(number):
            raise UsageError(f"--bm25-{name} needs a number (got {number})")
    chosen = Bm25() if depth is None else Bm25(depth=depth)
    return replace(
        chosen,
        k1=chosen.k1 if k1 is None else k1,
        b=chosen.b if b is None else b,
        language=language or chosen.language,
    )
