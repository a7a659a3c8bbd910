"""One run per output at a time: an flock on a small file beside it, which the system releases with the process."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rerank_cli.errors import OutputError, RefusedError
from rerank_cli.storage.paths import is_open_at

_RETRY_SECONDS = 0.2  # `holder` takes the lock for a moment


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock inside the block, then remove the file. Raises RefusedError that names the other process."""
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise RefusedError(f"{what}: being written by {owner}. Fix: wait for it, or another -o") from None
            time.sleep(_RETRY_SECONDS / 10)
            continue
        if is_open_at(descriptor, path):
            break
        os.close(descriptor)  # the holder removed the file between our two calls
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(path: Path) -> str | None:
    """The process that holds the lock now, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _owner(descriptor)
    finally:
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    return os.read(descriptor, 200).decode(errors="replace") or "another process"
