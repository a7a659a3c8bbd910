"""A receipt on a finished output, by which the same command recognises that nothing remains to be done.

It is an extended attribute of the file, so that no second file is needed, and a copy or an edit of the output does not
carry it. On a file system without extended attributes an existing output is refused instead. A second attribute has the
figures that `rerank status` shows of a finished output.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

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
_RECORD = "user.rerank.record"


def receipt(config: RunConfig, revisions: Sequence[str], stamps: Sequence[Stamp | None]) -> str | None:
    """A hash of a run's settings, its models' revisions and its inputs' stamps; None if an input is a stream."""
    if None in stamps:
        return None
    model, sizes = config.model, (config.limit, config.chunk_pairs)
    unlisted = ["unlisted"] if config.input.by_id and config.input.by_id.answer_unlisted else []
    asked = ("+".join(revisions), model.dtype, model.max_length, model.query_max_length, *sizes, *unlisted)
    content = orjson.dumps([settings(config), asked, stamps])
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sign(path: Path, found: str, rejected: int) -> None:
    """Store receipt, size and number of rejected records on a file, if its file system has extended attributes."""
    if hasattr(os, "setxattr"):
        with suppress(OSError):
            os.setxattr(path, _ATTRIBUTE, f"{found} {path.stat().st_size} {rejected}".encode())


def signed(path: Path) -> tuple[str, int] | None:
    """Receipt and number of rejected records of a file; None without them, or if the file's size has changed."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        found, size, rejected = os.getxattr(path, _ATTRIBUTE).decode().split()
        return (found, int(rejected)) if int(size) == path.stat().st_size else None
    except (OSError, ValueError):
        return None


def attach_record(path: Path, figures: Mapping[str, Any]) -> None:
    """Store the figures of a run on a file, if its file system has extended attributes and room for them.

    ext4 has 4 KiB for all attributes of a file, so a long `command` may be left out.
    """
    if hasattr(os, "setxattr"):
        size = {"size": path.stat().st_size}
        try:
            os.setxattr(path, _RECORD, orjson.dumps({**figures, **size}))
        except OSError:
            with suppress(OSError):
                os.setxattr(path, _RECORD, orjson.dumps({**figures, "command": None, **size}))


def recorded(path: Path) -> dict[str, Any] | None:
    """The figures stored on a file; None without them, or if the file's size has changed."""
    if hasattr(os, "getxattr"):
        with suppress(OSError, ValueError):
            found: dict[str, Any] = orjson.loads(os.getxattr(path, _RECORD))
            return found if found.pop("size", None) == path.stat().st_size else None
    return None


def identity(path: Path) -> list[int]:
    """Device, inode and size of a file, which a rename does not change."""
    info = path.stat()
    return [info.st_dev, info.st_ino, info.st_size]


def complete(config: RunConfig, state: OutputState, revision_of: Callable[[ModelOptions], str] | None) -> int | None:
    """The number of rejected records if an earlier run of the same command has completed the output, else None.

    If so, removes the files that the earlier run left because it was killed after finishing the output.
    """
    final = final_path(config.output.path)
    if state.partial is None or config.resume is Resume.NEVER or not final.is_file():
        return None
    saved = state.sealed()
    found = None if config.output.overwrite else signed(final)
    if saved is None and found is None:
        return None
    stamps = [stamp_of(path) for path in input_files(config.input)]
    now = receipt(config, [revision_of(model) for model in config.models], stamps) if revision_of else None
    if saved and saved.sealed == identity(final):
        same = saved.receipt == now and not differences(saved.fingerprint, settings(config))
        rejected = saved.counts["rejected"] if same else None
    else:
        rejected = found[1] if found and found[0] == now else None
    if rejected is not None:
        discard_partial(config.output.path)
        state.forget()
    return rejected
