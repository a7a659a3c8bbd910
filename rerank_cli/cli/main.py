"""The command: assembles the sub-commands and turns every ending into its exit code.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated

import typer

from rerank_cli import __version__
from rerank_cli.cli.check import check
from rerank_cli.cli.models import models
from rerank_cli.cli.run import run
from rerank_cli.cli.score import score
from rerank_cli.errors import RerankError

EPILOG = (
    "Exit codes: 0 done, 1 internal error, 2 bad flags, 3 done but records were rejected, 4 bad input, 5 bad model, "
    "6 refused, 7 output not written, 128+N died of signal N."
)

app = typer.Typer(
    name="rerank",
    help="Rerank files of queries and candidate passages with cross-encoder models.\n\n"
    "  rerank run candidates.jsonl -o reranked.jsonl",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("score")(score)
app.command("check")(check)
app.command("models")(models)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rerank {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Rerank files of queries and candidate passages with cross-encoder models."""


def main() -> None:
    """Entry point: one line and an exit code for every failure a person can cause; a traceback only with --debug."""
    debug = "--debug" in sys.argv
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        app()
    except RerankError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        die_quietly_of_closed_pipe()
    except OSError as error:
        if debug:
            raise
        _complain(f"{error.filename or 'input or output'}: {error.strerror}")
        sys.exit(7 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else 4)
    except Exception as error:
        if debug:
            raise
        _complain(f"internal error: {type(error).__name__}: {error}. Fix: report it with the output of --debug")
        sys.exit(1)


def die_quietly_of_closed_pipe() -> None:
    """End as a program in a pipe should whose reader has gone: of SIGPIPE, without a word."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


def _complain(message: str) -> None:
    print(f"rerank: {' '.join(message.splitlines())}", file=sys.stderr)
