"""The process's own streams: data on stdout and nothing else, words on stderr."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import BinaryIO

import orjson

from rerank_cli.errors import OutputError, UsageError


def stand_in_for_closed() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, so that no file of ours gets their number.

    `sys.stdin` and `sys.stdout` stay None then, which is how the commands know.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process


def claim_stdout() -> BinaryIO:
    """Keep the real stdout on a private descriptor and point fd 1 at stderr.

    A stray print in a library then cannot corrupt the data. Returns the real stdout, unbuffered below us.
    """
    if sys.stdout is None:
        raise OutputError("<stdout>: is closed. Fix: -o FILE")
    sys.stdout.flush()
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def require_input(inputs: list[str] | None) -> tuple[str, ...]:
    """The inputs named, or stdin; UsageError if that is a terminal or closed."""
    if not inputs or "-" in inputs:
        if sys.stdin is None:
            raise UsageError("no INPUT, and stdin is closed. Fix: name a file")
        if not inputs and sys.stdin.isatty():
            raise UsageError("no INPUT, and stdin is a terminal. Fix: name a file, or pipe records in (see --help)")
    return tuple(inputs or ["-"])


def silence_stdout() -> None:
    """Let nothing more reach a stdout that has failed, not even at the interpreter's last flush."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def die_of_closed_pipe() -> None:
    """End as a program in a pipe should whose reader has gone: of SIGPIPE, without a word."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


def prepare_environment() -> None:
    """Settings that libraries read when they are first imported. What a person set stays as it is."""
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }.items():
        os.environ.setdefault(name, value)


def say(message: str) -> None:
    """One line on stderr. Control characters, which user text may hold, are shown and not sent."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(f"rerank: {text}", file=sys.stderr, flush=True)


def say_json(message: str) -> None:
    """The same for `--progress json`: an object a line, so that stderr can be parsed."""
    print(orjson.dumps({"event": "notice", "message": message}).decode(), file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """Say what went wrong, if anybody can hear it."""
    try:
        say(message)
    except OSError:
        silence_stdout()


def log_to_stderr(quiet: bool, verbose: bool) -> None:
    """Our own log lines in the form of our messages; warnings only, unless asked for more or less."""
    logger = logging.getLogger("rerank_cli")
    logger.handlers.clear()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rerank: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
