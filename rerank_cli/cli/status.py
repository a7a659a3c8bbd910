"""`rerank status`: how far the run of an output is, and which process writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import typer

from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag

if TYPE_CHECKING:
    from rerank_cli.inspection.status import Status

_STATES = {
    "running": "running: {holder}",
    "stopped": "stopped; the same command goes on",
    "complete": "complete",
    "exists": "there is a file, nothing is known of how it was made",
}


@declare.command()
def status(
    output: str = typer.Argument(metavar="OUTPUT", help="What the run was told to write with -o."),
    checkpoint: str | None = flag(None, "Where the run was told to keep its checkpoint.", "FILE"),
    as_json: bool = common.AS_JSON,
    debug: bool = common.DEBUG,  # noqa: ARG001 - read in main
) -> None:
    """Show how far the run of OUTPUT is, its speed, its settings, and which process writes it.

    \b
      rerank status reranked.jsonl
      rerank status - --checkpoint pipe.checkpoint

    Figures are those of the last commit. Loads no model. Exit code 4 if nothing is known of OUTPUT.
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
