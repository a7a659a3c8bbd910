"""One run at a time for one output: an flock on a small file beside it, which the system drops with the process."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rerank_cli.errors import OutputError, RefusedError

_GLANCE = 0.2  # seconds; `holder` takes the lock for a moment


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock until the block is left, then remove the file. RefusedError names who holds it."""
    descriptor = _acquire(path, what)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(path: Path) -> str | None:
    """Who holds the lock now, None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _said(descriptor: int) -> str:
    return os.read(descriptor, 200).decode(errors="replace") or "another process"


def _acquire(path: Path, what: str) -> int:
    patience = time.monotonic() + _GLANCE
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _said(descriptor)
            os.close(descriptor)
            if time.monotonic() < patience:
                time.sleep(_GLANCE / 10)
                continue
            raise RefusedError(f"{what}: being written by {who}. Fix: wait for it, or another -o") from None
        if _still_there(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder finished and removed it between our two calls


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
