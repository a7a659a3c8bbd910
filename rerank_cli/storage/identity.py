"""Which file a path or a stream really is, so that an output never overwrites what is being read."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rerank_cli.display import shown
from rerank_cli.errors import RefusedError
from rerank_cli.formats.options import STREAM

Identity = tuple[int, int]


def refuse_if_input(
    written: str | Path, inputs: Sequence[str], fix: str = "another -o", stdout: BinaryIO | None = None
) -> None:
    """Raise RefusedError if what is to be written is one of the inputs: the same file, under whatever name."""
    identity = _of(written, stdout or sys.stdout)
    if identity is None:
        return
    for path in inputs:
        if _of(path, sys.stdin) == identity:
            name = "stdout" if written == STREAM else shown(str(written), 300)
            raise RefusedError(f"{name}: would be written while it is read as an input. Fix: {fix}")


def _of(path: str | Path, stream: object) -> Identity | None:
    """Device and inode of a regular file, None for anything else."""
    try:
        info = os.fstat(stream.fileno()) if path == STREAM else Path(path).stat()  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return None
    return (info.st_dev, info.st_ino) if stat.S_ISREG(info.st_mode) else None
