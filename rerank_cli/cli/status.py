"""`rerank status`: how far the run of an output is, and who is at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from rerank_cli.cli import options as opt

if TYPE_CHECKING:
    from rerank_cli.inspection.status import Status

_STATES = {
    "running": "running: {holder}",
    "stopped": "stopped; the same command goes on",
    "complete": "complete",
    "exists": "there is a file, nothing is known of how it was made",
}


def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="What a run was told to write with -o.")],
    checkpoint: Annotated[
        str | None, opt.flag("--checkpoint", metavar="FILE", help="Where the run was told to keep its checkpoint.")
    ] = None,
    as_json: Annotated[bool, opt.flag("--json", help="One JSON object instead of a table.")] = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """Say how far the run of OUTPUT is, how fast, what it was made with and who writes it.

    \b
      rerank status reranked.jsonl
      rerank status - --checkpoint pipe.checkpoint

    Figures are those of the last commit. Loads no model. Exit 4 when nothing is known of OUTPUT.
    """
    from rerank_cli.inspection.status import status_of

    found = status_of(output, checkpoint)
    if as_json:
        typer.echo(orjson.dumps(found.as_json()).decode())
        return
    for name, value in _rows(found):
        typer.echo(f"{name:<10}  {value}")


def _rows(found: Status) -> list[tuple[str, str]]:
    rows = [("output", found.output), ("state", _STATES[found.state].format(holder=found.holder))]
    if found.kept_bytes:
        rows.append(("kept", f"{found.kept_bytes:,} bytes"))
    if found.checkpoint is None:
        return rows
    progress, counts = found.checkpoint.progress, found.checkpoint.counts
    share, eta = progress["share_done"], progress["eta_seconds"]
    done = f"{counts['records']:,} records, {counts['pairs']:,} pairs"
    pace = f"{progress['pairs_per_second']:,.0f} pairs/s, {progress['tokens_per_second']:,.0f} tokens/s"
    rows += [
        ("done", done + (f", {share:.1%}" if share is not None else "")),
        ("pace", pace + (f", {eta:,.0f} s to go" if eta is not None else "")),
        ("rejected", f"{counts['rejected']:,} records"),
        ("committed", f"{progress['time']} ({found.age_seconds:,.0f} s ago)"),
    ]
    settings = [f"{name} {value}" for name, value in found.checkpoint.fingerprint.items() if value is not None]
    return [*rows, ("made with", ", ".join(settings))]
