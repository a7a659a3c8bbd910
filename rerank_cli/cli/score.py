"""`rerank score`: score a few documents given on the command line."""

from __future__ import annotations

from collections.abc import Callable
from io import TextIOWrapper
from typing import Any

import typer

from rerank_cli.cli.flags import common, declare, model
from rerank_cli.cli.terminal.streams import claim_stdout, prepare, write


@declare.command
def score(
    reading: Callable[[], Any] = model.reading,
    place: Callable[[], dict[str, Any]] = model.place,
    query: str = typer.Argument(metavar="QUERY", help="The query."),
    documents: list[str] = typer.Argument(metavar="DOC", help="Documents to score."),
    top_n: int | None = common.TOP_N,
) -> None:
    """Score documents for a query: a table on a terminal, JSON lines in a pipe.

    \b
      rerank score "what is panda?" "hi" "The giant panda is a bear." -m mini
    """
    prepare()
    from rerank_cli.engine.lazy import start_session
    from rerank_cli.inspection.score import score_documents

    stdout = claim_stdout()
    session = start_session(model.model_of(reading, place))
    scored = score_documents(session, query, documents)[:top_n]
    if not stdout.isatty():
        for one in scored:
            write(stdout, {"index": one.index, "relevance_score": one.score, "logit": one.logit, "text": one.text})
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    right = [Column(name, justify="right") for name in ("rank", "score", "logit")]
    table = Table(*right, "document", box=None, pad_edge=False)
    for rank, one in enumerate(scored, 1):
        table.add_row(str(rank), f"{one.score:.4f}", f"{one.logit:.3f}", Text(one.text))
    with TextIOWrapper(stdout, encoding="utf-8") as file:
        Console(file=file).print(table)
