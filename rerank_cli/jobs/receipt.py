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
from typing import TYPE_CHECKING

import orjson

from rerank_cli.engine.contract import ModelOptions
from rerank_cli.formats import Stamp, discard_partial, final_path, stamp_of
from rerank_cli.jobs.choices import Resume
from rerank_cli.jobs.fingerprint import differences, settings
from rerank_cli.jobs.workplace import Workplace

if TYPE_CHECKING:
    from rerank_cli.jobs.options import RunConfig

_ATTRIBUTE = "user.rerank.run"


def receipt(config: RunConfig, revision: str, stamps: Sequence[Stamp | None]) -> str | None:
    """What tells this run from all others, None if an input is a stream. `revision` is the model's."""
    if None in stamps:
        return None
    model = config.model
    asked = (revision, model.dtype, model.max_length, model.query_max_length, config.limit, config.chunk_pairs)
    content = orjson.dumps([settings(config), asked, stamps])
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sign(path: Path, found: str) -> None:
    """Put the receipt on a file, if its file system takes one."""
    if hasattr(os, "setxattr"):
        with suppress(OSError):
            os.setxattr(path, _ATTRIBUTE, f"{found} {path.stat().st_size}".encode())


def signed(path: Path) -> str | None:
    """The receipt of a file that has the size it was signed with."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        found, size = os.getxattr(path, _ATTRIBUTE).decode().split()
        return found if int(size) == path.stat().st_size else None
    except (OSError, ValueError):
        return None


def identity(path: Path) -> list[int]:
    """What stays of a file when it is renamed: device, inode, size."""
    info = path.stat()
    return [info.st_dev, info.st_ino, info.st_size]


def complete(config: RunConfig, place: Workplace, revision_of: Callable[[ModelOptions], str] | None) -> bool:
    """Did an earlier run of the same command write the output that exists? Puts away what it left if it was killed."""
    if place.partial is None or config.resume is Resume.NEVER:
        return False
    final = final_path(config.output.path)
    if not final.is_file():
        return False
    left = place.sealed()
    if left and left.sealed == identity(final) and not differences(left.fingerprint, settings(config)):
        discard_partial(config.output.path)
        place.forget()
        return True
    found = None if config.output.overwrite or revision_of is None else signed(final)
    if found is None or revision_of is None:
        return False
    stamps = [stamp_of(path) for path in config.input.paths]
    return found == receipt(config, revision_of(config.model), stamps)
