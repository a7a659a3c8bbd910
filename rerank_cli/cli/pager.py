"""Text to the reader's pager while it is still being made: a long file is on the screen at once."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import IO


def through_pager(write: Callable[[IO[str]], None]) -> bool:
    """Let `write` write into `$PAGER`, or less; False if there is none. Leaving the pager ends the writing, quietly."""
    command = shlex.split(os.environ.get("PAGER") or "less")
    if not command or not shutil.which(command[0]):
        return False
    environment = {"LESS": "FRX"} | os.environ
    pager = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
    assert pager.stdin is not None
    try:
        with suppress(BrokenPipeError, KeyboardInterrupt):
            write(pager.stdin)
            pager.stdin.flush()
    finally:
        with suppress(BrokenPipeError):
            pager.stdin.close()
        _wait(pager)
    return True


def _wait(pager: subprocess.Popen[str]) -> None:
    """Until its reader leaves it; what the keyboard sends meanwhile is the pager's."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
