"""`rerank score`: score a few documents given on the command line."""

from __future__ import annotations

from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, BinaryIO

import orjson
import typer

from rerank_cli.cli.flags import common, declare, model
from rerank_cli.cli.streams import claim_stdout, log_to_stderr, prepare_environment


@declare.command(reading=model.reading, place=model.place)
def score(
    reading: Callable[[], Any],
    place: Callable[[], Any],
    query: str = typer.Argument(help="The query."),
    documents: list[str] = typer.Argument(metavar="DOC", help="Documents to score."),
    top_n: int | None = common.TOP_N,
    debug: bool = common.DEBUG,  # noqa: ARG001 - read in main
) -> None:
    """Score documents for a query: a table on a terminal, JSON lines in a pipe.

    \b
      rerank score "what is panda?" "hi" "The giant panda is a bear." -m mini
    """
    prepare_environment()
    log_to_stderr(quiet=False, verbose=False)
    from rerank_cli.engine.lazy import start_session
    from rerank_cli.inspection.score import score_documents

    stdout = claim_stdout()
    session = start_session(model.model_of(reading, place))
    scored = score_documents(session, query, documents)[:top_n]
    if stdout.isatty():
        _table(stdout, [(str(rank), f"{s.score:.4f}", f"{s.logit:.3f}", s.text) for rank, s in enumerate(scored, 1)])
        return
    for found in scored:
        row = {"index": found.index, "relevance_score": found.score, "logit": found.logit, "text": found.text}
        stdout.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    stdout.flush()


def _table(terminal: BinaryIO, rows: list[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("rank", "score", "logit"):
        table.add_column(name, justify="right")
    table.add_column("document")
    for *figures, text in rows:
        table.add_row(*figures, Text(text))
    with TextIOWrapper(terminal, encoding="utf-8") as file:
        Console(file=file).print(table)
