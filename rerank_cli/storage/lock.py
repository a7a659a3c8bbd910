"""One run per output at a time: an flock on a small file beside it, which the system releases with the process.

The file says which process holds the lock, and in its second line what that process last noted, for `holder`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rerank_cli.errors import HeldError, OutputError
from rerank_cli.storage.paths import is_open_at

_RETRY_SECONDS = 0.2  # `holder` takes the lock for a moment


class Holder(NamedTuple):
    """The process that holds a lock, and its last note (one line, "" if it has none)."""

    process: str
    note: str


@contextmanager
def locked(path: Path, what: str) -> Iterator[Callable[[str], None]]:
    """Hold the lock inside the block, then remove the file; yields what sets the note.

    Raises HeldError that names the other process, OutputError if the file system has no such locks.
    """
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read(descriptor).process
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise HeldError(f"{what}: being written by {owner}. Fix: wait for it, or another -o") from None
            time.sleep(_RETRY_SECONDS / 10)
            continue
        except OSError as error:
            os.close(descriptor)
            raise OutputError(f"{path}: cannot be locked: {error.strerror}") from error
        if is_open_at(descriptor, path):
            break
        os.close(descriptor)  # the holder removed the file between our two calls
    name = f"process {os.getpid()} on {socket.gethostname()}"

    def note(text: str) -> None:
        content = f"{name}\n{text}".encode()
        os.pwrite(descriptor, content, 0)
        os.truncate(descriptor, len(content))

    try:
        note("")
        yield note
    finally:
        if is_open_at(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """Who holds the lock now, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder:
    process, _, note = os.read(descriptor, 1 << 16).decode(errors="replace").partition("\n")
    return Holder(process or "another process", note)
