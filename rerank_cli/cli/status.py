"""`rerank status`: progress of the run of an output, and the process that writes it."""

from __future__ import annotations

import orjson
import typer

from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag

_STATES = {
    "running": "running: {holder}",
    "stopped": "stopped; the same command continues it",
    "complete": "complete",
    "exists": "a file without a receipt; how it was made is unknown",
}


@declare.command
def status(
    output: str = typer.Argument(metavar="OUTPUT", help="Output of the run, as given to -o."),
    checkpoint: str | None = flag(None, "Checkpoint of the run, as given to it.", "FILE"),
    as_json: bool = common.AS_JSON,
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
    rows = [("output", found.output), ("state", _STATES[found.state].format(holder=found.holder))]
    if found.kept_bytes:
        rows.append(("kept", f"{found.kept_bytes:,} bytes"))
    if found.checkpoint:
        progress, counts = found.checkpoint.progress, found.checkpoint.counts
        share, eta = progress["share_done"], progress["eta_seconds"]
        done = f"{counts['records']:,} records, {counts['pairs']:,} pairs"
        pace = f"{progress['pairs_per_second']:,.0f} pairs/s, {progress['tokens_per_second']:,.0f} tokens/s"
        settings = [f"{name} {value}" for name, value in found.checkpoint.fingerprint.items() if value is not None]
        rows += [
            ("done", done + (f", {share:.1%}" if share is not None else "")),
            ("pace", pace + (f", {eta:,.0f} s to go" if eta is not None else "")),
            ("rejected", f"{counts['rejected']:,} records"),
            ("committed", f"{progress['time']} ({found.age_seconds:,.0f} s ago)"),
            ("made with", ", ".join(settings)),
        ]
    for name, value in rows:
        typer.echo(f"{name:<10}  {value}")
