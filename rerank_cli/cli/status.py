"""`rerank status`: progress of the run of an output, and the process that writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import typer

from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag
from rerank_cli.errors import UsageError

_STATES = {
    "running": "running: {holder}",
    "stopped": "stopped; the same command continues it (without --restart)",
    "complete": "complete",
    "exists": "a file without a receipt; how it was made is unknown",
}


@declare.command
def status(
    output: str = typer.Argument(
        metavar="OUTPUT", help="Output of the run or the training, or output folder, as given to -o."
    ),
    checkpoint: str | None = flag(None, "Checkpoint of the run, as given to it.", "FILE"),
    as_json: bool = common.AS_JSON,
) -> None:
    """Show how far the run of OUTPUT is, its speed, its settings, and which process writes it.

    \b
      rerank status reranked.jsonl
      rerank status - --checkpoint pipe.checkpoint
      rerank status out/

    Figures of a run in progress are a few seconds old, those of a stopped one are of its last commit. A finished output
    has its own, unless the file was copied. Of an output folder, all files and processes are summed up. Loads no model.
    Exit code 4 if nothing is known of OUTPUT.
    """
    from rerank_cli.inspection.folder_status import is_folder_job
    from rerank_cli.inspection.status import status_of
    from rerank_cli.reports.training import is_training

    if is_training(output):
        _training(output, as_json)
        return
    if is_folder_job(output):
        if checkpoint:
            raise UsageError(
                "--checkpoint: in an output folder each file has its own beside it. Fix: remove --checkpoint"
            )
        _folder(output, as_json)
        return
    found = status_of(output, checkpoint)
    if as_json:
        typer.echo(orjson.dumps(found.as_json()).decode())
        return
    rows = [("output", found.output), ("state", _STATES[found.state].format(holder=found.holder))]
    if found.kept_bytes:
        rows.append(("kept", f"{found.kept_bytes:,} bytes"))
    if progress := found.progress:
        share, eta = progress["share_done"], progress["eta_seconds"]
        done = f"{progress['records']:,} records, {progress['pairs']:,} pairs"
        pace = f"{progress['pairs_per_second']:,.0f} pairs/s, {progress['tokens_per_second']:,.0f} tokens/s"
        rows += [
            ("done", done + (f", {share:.1%}" if share is not None else "")),
            ("pace", pace + (f", {eta:,.0f} s to go" if eta is not None else "")),
            ("rejected", f"{progress['rejected']:,} records"),
        ]
        rows += [("workers", line) for line in by_node(progress.get("workers", []))]
    if found.checkpoint:
        settings = [f"{name} {value}" for name, value in found.checkpoint.fingerprint.items() if value is not None]
        committed = f"{found.checkpoint.counts['records']:,} records, {found.age_seconds:,.0f} s ago"
        rows += [("committed", committed), ("made with", ", ".join(settings))]
    if figures := found.finished:
        rows += [
            ("done", f"{figures['records']:,} records, {figures['pairs']:,} pairs, {figures['tokens']:,} tokens"),
            ("rejected", f"{figures['rejected']:,} records"),
            ("finished", f"{figures['finished']}, in {figures['seconds']:,.1f} s"),
            ("pace", f"{figures['pairs_per_second']:,.0f} pairs/s"),
        ]
        if figures["model"]:
            where = f"on {figures['device']} in {figures['dtype']}"
            rows.append(("model", f"{figures['model']} ({figures['revision']}) {where}"))
        if figures["command"]:
            rows.append(("command", figures["command"]))
    for name, value in rows:
        typer.echo(f"{name:<10}  {value}")


def _folder(output: str, as_json: bool) -> None:
    """The status of a job with an output folder."""
    from rerank_cli.inspection.folder_status import folder_status

    found = folder_status(output)
    if as_json:
        typer.echo(orjson.dumps(found.as_json()).decode())
        return
    files = f"{found.done:,} of {found.files:,} files" if found.files is not None else f"{found.done:,} files"
    processes = len(found.running)
    holder = f"{processes} process{'' if processes == 1 else 'es'}"
    rows = [
        ("output", output),
        ("state", _STATES[found.state].format(holder=holder)),
        ("done", f"{files}, {found.records:,} records, {found.pairs:,} pairs"),
    ]
    for each in found.running:
        share = (each.progress or {}).get("share_done")
        part = f", {share:.1%}" if share is not None else ""
        doing = f"{each.output}{part}, {each.pairs_per_second:,.0f} pairs/s" if each.output else "between two files"
        rows.append(("running", f"{doing} ({each.process})"))
    if found.waiting:
        rows.append(
            ("waiting", f"{found.waiting:,} files" + (f", {found.begun:,} of them begun" if found.begun else ""))
        )
    rows.append(("rejected", f"{found.rejected:,} records"))
    rows += [("failed", f"{each.output}: {each.message}") for each in found.failed]
    if found.running:
        eta = f", {found.eta_seconds:,.0f} s to go" if found.eta_seconds is not None else ""
        rows.append(("pace", f"{found.pairs_per_second:,.0f} pairs/s{eta}"))
    if found.command:
        rows.append(("command", found.command))
    for name, value in rows:
        typer.echo(f"{name:<10}  {value}")


def by_node(workers: list[dict[str, Any]]) -> Iterator[str]:
    """`10.0.0.5: 8 ready (cuda), 1,024 pairs`, a line for each node."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for worker in workers:
        place = (worker["node"] or "no node yet", worker["state"], worker["device"])
        groups.setdefault(place, []).append(worker["pairs"])
    for (node, state, device), pairs in sorted(groups.items()):
        yield f"{node}: {len(pairs)} {state} ({device}), {sum(pairs):,} pairs"


def _training(output: str, as_json: bool) -> None:
    """The status of a training run."""
    from rerank_cli.reports.training import status_of

    found = status_of(output)
    if as_json:
        typer.echo(orjson.dumps(found).decode())
        return
    rows = [("output", output), ("state", _STATES[found["state"]].format(holder=found["holder"]))]
    if last := found.get("progress"):
        done = f"step {last['step']:,}, epoch {last['epoch']:.2f}, loss {last['loss']:.4f}, lr {last['lr']:.3g}"
        rows += [("done", done), ("pace", f"{last['tokens'] / max(last['seconds'], 1e-9):,.0f} tokens/s")]
    if line := found.get("evaluation"):
        measures = ", ".join(f"{name} {value:.4f}" for name, value in line["measures"].items())
        rows.append(("evaluated", f"step {line['step']:,}: {measures}"))
    for name, value in rows:
        typer.echo(f"{name:<10}  {value}")
