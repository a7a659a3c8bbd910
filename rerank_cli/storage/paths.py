"""What a path stands for: stdin or stdout, a device, a file that is being written, or one of the inputs."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rerank_cli.display import shown
from rerank_cli.errors import RefusedError

STREAM = "-"
"""The path that stands for stdin or stdout."""

PARTIAL = ".partial"
Identity = tuple[int, int]


def is_special(path: str) -> bool:
    """Is the path a device, a pipe or an open descriptor, to be written where it is?"""
    if path in ("/dev/stdout", "/dev/stderr") or path.startswith(("/dev/fd/", "/proc/self/fd/")):
        return True
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def final_path(path: str) -> Path:
    """Where the output will stand: a link is followed, so that it stays a link."""
    return Path(os.path.realpath(path))


def partial_path(path: str) -> Path:
    """Where it stands until then."""
    final = final_path(path)
    return final.with_name(final.name + PARTIAL)


def partial_of(path: str) -> Path | None:
    """Where an output stands until it is whole; None for streams and devices, which are written as they come."""
    return None if path == STREAM or is_special(path) else partial_path(path)


def successor_of(path: Path) -> Path:
    """Where a file is written that shall take the place of another; a kill may leave it there."""
    return path.with_name(path.name + ".new")


def sync_folder(folder: Path) -> None:
    """Make a change of names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_if_input(
    written: str | Path, inputs: Sequence[str], fix: str = "another -o", stdout: BinaryIO | None = None
) -> None:
    """Raise RefusedError if what is to be written is one of the inputs: the same file, under whatever name."""
    identity = _identity(written, stdout or sys.stdout)
    if identity is None:
        return
    for path in inputs:
        if _identity(path, sys.stdin) == identity:
            name = "stdout" if written == STREAM else shown(str(written), 300)
            raise RefusedError(f"{name}: would be written while it is read as an input. Fix: {fix}")


def _identity(path: str | Path, stream: object) -> Identity | None:
    """Device and inode of a regular file, None for anything else."""
    try:
        info = os.fstat(stream.fileno()) if path == STREAM else Path(path).stat()  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return None
    return (info.st_dev, info.st_ino) if stat.S_ISREG(info.st_mode) else None
