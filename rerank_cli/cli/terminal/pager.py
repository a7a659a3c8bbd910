"""Writes text to the user's pager while it is being produced, so that a long file is on the screen at once."""

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
    """Call `write` with the stdin of `$PAGER` or less; False without a pager. Quitting the pager ends the writing."""
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
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it ends, Ctrl-C is for the pager
        try:
            pager.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    return True
