"""A note on a finished output, by which the same run begun again knows that there is nothing left to do.

It is an extended attribute of the file: no second file lies about, and a copy or an edit by another program goes
without it. Where the file system keeps none, an output that exists is somebody's, and is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from rerank_cli.choices import Resume
from rerank_cli.engine.options import ModelOptions
from rerank_cli.formats import discard_partial, input_files
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.fingerprint import differences, settings
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.storage.opening import Stamp, stamp_of
from rerank_cli.storage.paths import final_path

_ATTRIBUTE = "user.rerank.run"


def receipt(config: RunConfig, revisions: Sequence[str], stamps: Sequence[Stamp | None]) -> str | None:
    """What tells this run from all others, None if an input is a stream. `revisions` are its models'."""
    if None in stamps:
        return None
    model = config.model
    asked = (
        "+".join(revisions),
        model.dtype,
        model.max_length,
        model.query_max_length,
        config.limit,
        config.chunk_pairs,
    )
    content = orjson.dumps([settings(config), asked, stamps])
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sign(path: Path, found: str, rejected: int) -> None:
    """Put the receipt on a file, if its file system takes one, and how many records were rejected."""
    if hasattr(os, "setxattr"):
        with suppress(OSError):
            os.setxattr(path, _ATTRIBUTE, f"{found} {path.stat().st_size} {rejected}".encode())


def signed(path: Path) -> tuple[str, int] | None:
    """The receipt of a file that has the size it was signed with, and the number of rejected records."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        found, size, rejected = os.getxattr(path, _ATTRIBUTE).decode().split()
        return (found, int(rejected)) if int(size) == path.stat().st_size else None
    except (OSError, ValueError):
        return None


def identity(path: Path) -> list[int]:
    """What stays of a file when it is renamed: device, inode, size."""
    info = path.stat()
    return [info.st_dev, info.st_ino, info.st_size]


def complete(config: RunConfig, place: OutputState, revision_of: Callable[[ModelOptions], str] | None) -> int | None:
    """If an earlier run of the same command wrote the output that exists: how many records it rejected. Else None.

    Puts away what that run left if it was killed before it could.
    """
    if place.partial is None or config.resume is Resume.NEVER or not final_path(config.output.path).is_file():
        return None
    left, found = place.sealed(), signed(final_path(config.output.path))
    if left is None and (found is None or config.output.overwrite):
        return None
    stamps = [stamp_of(path) for path in input_files(config.input)]
    now = receipt(config, [revision_of(model) for model in config.models], stamps) if revision_of else None
    rejected = None
    if left and left.sealed == identity(final_path(config.output.path)):
        same = left.receipt == now and not differences(left.fingerprint, settings(config))
        rejected = left.counts["rejected"] if same else None
    elif found and not config.output.overwrite and found[0] == now:
        rejected = found[1]
    if rejected is not None:
        discard_partial(config.output.path)
        place.forget()
    return rejected
