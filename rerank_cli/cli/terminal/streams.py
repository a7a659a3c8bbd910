"""Standard streams of the process: stdout carries data only, messages go to stderr."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson

from rerank_cli.display import without_secrets
from rerank_cli.errors import OutputError, UsageError
from rerank_cli.run.signals import die_of


def stand_in_for_closed() -> None:
    """Open /dev/null in place of a closed stdin, stdout or stderr, so that no file of ours gets its descriptor.

    `sys.stdin` and `sys.stdout` stay None then, by which commands recognize a closed stream.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process


def claim_stdout() -> BinaryIO:
    """Move stdout to a private descriptor, returned as a buffered binary file, and point descriptor 1 at stderr.

    Libraries that print to stdout then cannot corrupt the data. Raises OutputError if stdout is closed.
    """
    if sys.stdout is None:
        raise OutputError("<stdout>: is closed. Fix: -o FILE")
    sys.stdout.flush()
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def write(stdout: BinaryIO, content: str | dict[str, Any]) -> None:
    """Write text, or an object as one line of JSON, and flush."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else orjson.dumps(content) + b"\n"
    stdout.write(data)
    stdout.flush()


def require_input(inputs: list[str] | None) -> tuple[str, ...]:
    """The given inputs, or stdin; UsageError if stdin is a terminal or closed."""
    if not inputs or "-" in inputs:
        if sys.stdin is None:
            raise UsageError("no INPUT, and stdin is closed. Fix: name a file")
        if not inputs and sys.stdin.isatty():
            raise UsageError("no INPUT, and stdin is a terminal. Fix: name a file, or pipe records in (see --help)")
    return tuple(inputs or ["-"])


def silence_stdout() -> None:
    """Redirect a failed stdout to /dev/null, so that the interpreter's last flush does not fail too."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def die_of_closed_pipe() -> None:
    """End silently by SIGPIPE, like other programs in a pipe whose reader has ended."""
    die_of(signal.SIGPIPE)


def prepare_environment() -> None:
    """Set variables that libraries read on import, unless the user has set them."""
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    }.items():
        os.environ.setdefault(name, value)


def prepare(*, quiet: bool = False, verbose: bool = False) -> None:
    """Prepare the environment, and log warnings (`verbose`: everything, `quiet`: errors) to stderr like messages."""
    prepare_environment()
    logger = logging.getLogger("rerank_cli")
    logger.handlers.clear()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rerank: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)


def say(message: str) -> None:
    """Print one line on stderr, without secrets in addresses; control characters, as in user text, are escaped."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in without_secrets(message))
    _write_line(f"rerank: {text}")


def _write_line(text: str) -> None:
    """One write, unlike `print`: the thread that shows progress may not get between a line and its end."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def notifier(quiet: bool, *, as_json: bool = False) -> Callable[[str], None]:
    """`say`, or a function that does nothing; with `as_json` one object per line, so that stderr can be parsed."""
    if as_json and not quiet:
        return lambda text: _write_line(orjson.dumps({"event": "notice", "message": without_secrets(text)}).decode())
    return (lambda _: None) if quiet else say
