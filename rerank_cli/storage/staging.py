"""Where an output in a bucket is built: a local folder that outlives the process, so that the same command goes on.

It is `$XDG_STATE_HOME/rerank` or `~/.local/state/rerank`, with a folder for each remote path.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from rerank_cli.storage.remote import split


def state_folder() -> Path:
    """May not exist yet."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".local" / "state") / "rerank"


def staged_path(path: str) -> Path:
    """The local path under which a remote file is built; equal for equal remote paths."""
    name = split(path)[2].rstrip("/").rpartition("/")[2] or "file"
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return state_folder() / digest / name[-100:]


def make_room(path: str) -> Path:
    """Create the folder of `staged_path`; returns that path. Raises OSError."""
    staged = staged_path(path)
    staged.parent.mkdir(parents=True, exist_ok=True)
    return staged


def tidy(path: str) -> None:
    """Remove the folder of `staged_path` if nothing is left in it."""
    with suppress(OSError):
        staged_path(path).parent.rmdir()
