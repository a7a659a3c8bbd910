"""`rerank view`: page through queries and their reranked passages."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from io import TextIOWrapper
from typing import IO

import typer

from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.terminal.pager import through_pager


@declare.command
def view(
    file: str = typer.Argument(metavar="FILE", help="What a run wrote; - is stdin."),
    given: list[str] | None = common.GIVEN,
    qrels: str | None = common.QRELS,
    query: str | None = flag(None, "Show only the query with this id.", "ID"),
    top: int = flag(10, "Passages to show of each query.", "N", min=1),
    full: bool = flag(False, "Show whole passages, not only one line of each."),
) -> None:
    """Page through queries and passages: score, new rank, first-stage rank, and text.

    \b
      rerank view reranked.jsonl --input candidates.jsonl --qrels qrels.tsv
      rerank view reranked.jsonl --query 42 --top 3 --full

    Uses $PAGER (less) on a terminal, plain text elsewhere. Reads the file only as far as it is shown.
    """
    from rerank_cli.reports.view import ViewOptions, queries, text_of
    from rerank_cli.storage.listing import expanded

    options = ViewOptions(file, expanded(given or ()), qrels, query, top)
    with ExitStack() as stack:
        found = queries(options, stack)
        colour = sys.stdout is not None and sys.stdout.isatty()

        def write(target: IO[str]) -> None:
            for one, judged in found:
                target.write(text_of(one, judged, top, colour, full))

        if not (colour and through_pager(write)):
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8", errors="replace")
            write(sys.stdout)
