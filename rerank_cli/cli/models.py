"""`rerank models`: checkpoints we know by name, and which of them are on disk."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from rerank_cli.cli import options as opt
from rerank_cli.cli.streams import prepare_environment


def models(
    as_json: Annotated[bool, opt.flag("--json", help="One JSON object a line instead of a table.")] = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """List known models: family, size, length, licence, and whether they are on disk.

    Any sequence-classification cross-encoder with one label works, by Hub id or folder; these were looked at.
    """
    prepare_environment()
    from rerank_cli.models.cache import on_disk
    from rerank_cli.models.registry import KNOWN

    rows = [(known, on_disk(known.name)) for known in KNOWN]
    if as_json:
        for known, here in rows:
            fields = {name: getattr(known, name) for name in known.__dataclass_fields__}
            typer.echo(orjson.dumps(fields | {"on_disk": here}).decode())
        return
    width = max(len(known.name) for known, _ in rows)
    typer.echo(f"{'model':<{width}}  disk  family   params  length  {'licence':<12}  note")
    for known, here in rows:
        disk = "yes" if here else "-"
        typer.echo(
            f"{known.name:<{width}}  {disk:<4}  {known.family:<7}  {known.parameters:>6}  {known.max_length:>6}  "
            f"{known.licence:<12}  {known.note}"
        )
