"""`rerank merge`: the outputs of `rerank run --shard` as one."""

from __future__ import annotations

import shlex
import sys

import typer

from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.terminal.streams import notifier
from rerank_cli.errors import EXIT_REJECTED


@declare.command
def merge(
    shards: list[str] = typer.Argument(metavar="SHARD", help="Outputs of all shards, in any order."),
    output: str = flag(..., "Where to write; the suffix is that of the shards.", "FILE", short="-o"),
    errors: str | None = flag(None, "Merge the files of rejected records too (--errors of the shards).", "FILE"),
    by_name: bool = flag(False, "Trust the names of files that have lost their receipts."),
    overwrite: bool = common.OVERWRITE,
    quiet: bool = common.QUIET,
) -> None:
    """Put the outputs of `rerank run --shard` together: the output that one run would have written.

    \b
      rerank merge part-*.jsonl -o whole.jsonl
      rerank merge part-*.parquet -o whole.parquet

    Refused if a shard is missing, is not finished, is there twice, overlaps with another, or was made with another
    number of shards, other settings or another input. The shards stay. Exit code 3 if records were rejected.
    """
    from rerank_cli.run.sharding.merge import MergeOptions, merge

    say = notifier(quiet)
    command = shlex.join(["rerank", *sys.argv[1:]])
    merged = merge(MergeOptions(shards, output, errors, overwrite, by_name, say, command))
    records = "" if merged.records is None else f", {merged.records:,} records"
    rejected = f", {merged.rejected:,} rejected" if merged.rejected else ""
    done = ": already complete, nothing to do" if merged.nothing_to_do else ""
    say(f"{output}{done}: {merged.shards:,} shards{records}{rejected}")
    if merged.rejected:
        raise typer.Exit(EXIT_REJECTED)
