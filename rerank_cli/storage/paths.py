"""Kinds of paths (stdin or stdout, device, output), the names of unfinished files, and durable renames."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rerank_cli.display import shown
from rerank_cli.errors import RefusedError
from rerank_cli.storage.remote import is_remote
from rerank_cli.storage.staging import staged_path

STREAM = "-"  # the path that means stdin or stdout


def is_special(path: str) -> bool:
    """Whether the path is a device, a pipe or an open descriptor, which is written in place."""
    if is_remote(path):
        return False
    if path in ("/dev/stdout", "/dev/stderr") or path.startswith(("/dev/fd/", "/proc/self/fd/")):
        return True
    with suppress(OSError, ValueError):
        mode = Path(path).stat().st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    return False


def final_path(path: str) -> Path:
    """The local path of the finished output: a link is followed, so that it stays a link.

    For an output in a bucket the path where it is built, which never has the finished output.
    """
    return staged_path(path) if is_remote(path) else Path(os.path.realpath(path))


def partial_path(path: str) -> Path:
    """The path of the unfinished output."""
    final = final_path(path)
    return final.with_name(final.name + ".partial")


def partial_of(path: str) -> Path | None:
    """The path of the unfinished output, None for streams and devices, which are written in place."""
    return None if path == STREAM or is_special(path) else partial_path(path)


def successor_of(path: Path) -> Path:
    """The temporary file that replaces `path`; a killed process may leave it."""
    return path.with_name(path.name + ".new")


def is_open_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this path: another process may have renamed or removed it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_if_input(
    written: str | Path, inputs: Sequence[str], fix: str = "another -o", stdout: BinaryIO | None = None
) -> None:
    """Raise RefusedError if the file to write is one of the inputs, under the same or another name."""
    identity = _identity(written, stdout or sys.stdout)
    if identity and any(_identity(path, sys.stdin) == identity for path in inputs):
        name = "stdout" if written == STREAM else shown(str(written), 300)
        raise RefusedError(f"{name}: would be written while it is read as an input. Fix: {fix}")


def _identity(path: str | Path, stream: object) -> tuple[int, int] | str | None:
    """Device and inode of a regular file, a remote path itself, None for anything else."""
    if isinstance(path, str) and is_remote(path):
        return path
    try:
        info = os.fstat(stream.fileno()) if path == STREAM else Path(path).stat()  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return None
    return (info.st_dev, info.st_ino) if stat.S_ISREG(info.st_mode) else None
