"""`rerank view`: queries and their reranked passages, page by page."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from io import TextIOWrapper
from typing import IO, Annotated

import typer

from rerank_cli.cli import options as opt
from rerank_cli.cli.pager import through_pager


def view(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What a run wrote; - is stdin.")],
    given: opt.Given = None,
    qrels: opt.Qrels = None,
    query: Annotated[str | None, opt.flag("--query", metavar="ID", help="Only the query with this id.")] = None,
    top: Annotated[int, opt.flag("--top", metavar="N", min=1, help="Passages to show of each query.")] = 10,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """Page through queries and passages: score, new rank, first-stage rank, and text.

    \b
      rerank view reranked.jsonl --input candidates.jsonl --qrels qrels.tsv
      rerank view reranked.jsonl --query 42 --top 3

    Uses $PAGER (less) on a terminal, plain text elsewhere. Reads as far as you look.
    """
    from rerank_cli.reports.view import ViewOptions, queries, text_of

    options = ViewOptions(file, tuple(given or ()), qrels, query, top)
    with ExitStack() as stack:
        found = queries(options, stack)
        colour = sys.stdout is not None and sys.stdout.isatty()

        def write(target: IO[str]) -> None:
            for one, judged in found:
                target.write(text_of(one, judged, top, colour))

        if not (colour and through_pager(write)):
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8", errors="replace")
            write(sys.stdout)
