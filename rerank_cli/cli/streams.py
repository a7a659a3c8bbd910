"""The process's own streams: data on stdout and nothing else, words on stderr."""

from __future__ import annotations

import logging
import os
import sys
from typing import BinaryIO


def claim_stdout() -> BinaryIO:
    """Keep the real stdout on a private descriptor and point fd 1 at stderr.

    A stray print in a library then cannot corrupt the data. Returns the real stdout, unbuffered below us.
    """
    sys.stdout.flush()
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


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
    print(f"rerank: {message}", file=sys.stderr, flush=True)


def log_to_stderr(quiet: bool, verbose: bool) -> None:
    """Our own log lines in the form of our messages; warnings only, unless asked for more or less."""
    logger = logging.getLogger("rerank_cli")
    logger.handlers.clear()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rerank: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
