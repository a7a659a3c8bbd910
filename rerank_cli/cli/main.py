"""The command: assembles the sub-commands and turns every ending into its exit code.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, NoReturn, ParamSpec, TypeVar

import typer

from rerank_cli import __version__
from rerank_cli.cli.bench import bench
from rerank_cli.cli.check import check
from rerank_cli.cli.eval import evaluate
from rerank_cli.cli.flags.declare import GroupedHelp
from rerank_cli.cli.inspect import inspect
from rerank_cli.cli.mine import mine
from rerank_cli.cli.models import models
from rerank_cli.cli.report import report
from rerank_cli.cli.run import run
from rerank_cli.cli.score import score
from rerank_cli.cli.status import status
from rerank_cli.cli.streams import complain, die_of_closed_pipe, silence_stdout, stand_in_for_closed
from rerank_cli.cli.view import view
from rerank_cli.errors import ClosedPipe, RerankError

P = ParamSpec("P")
R = TypeVar("R")

# The root of typer's own errors about the command line; its name depends on the version.
_CommandLineError = typer.BadParameter.__mro__[2]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

EPILOG = (
    "Every flag can be set in the environment too: RERANK_MAX_LENGTH=256 is --max-length 256.\n\n"
    "Exit codes: 0 done, 1 internal error, 2 bad flags, 3 done but records were rejected, 4 bad input, 5 bad model, "
    "6 refused, 7 output not written, 10 stopped by --max-duration, 128+N ended by signal N."
)


def _told(command: Callable[P, R]) -> Callable[P, R]:
    """Typer takes a closed pipe for an ordinary failure; let it through to us under another name."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ClosedPipe from error
        return result

    return wrapper


app = typer.Typer(
    name="rerank",
    help="Rerank files of queries and candidate passages with cross-encoder models.\n\n"
    "  rerank run candidates.jsonl -o reranked.jsonl",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
_COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("run", run, "Rerank the candidates of every query in a file."),
    ("score", score, "Score a few documents given on the command line."),
    ("check", check, "Validate an input and count its tokens."),
    ("inspect", inspect, "Show how the model reads one pair."),
    ("bench", bench, "Measure speed on a sample, and estimate the whole file."),
    ("eval", evaluate, "Measure a ranking by relevance judgements."),
    ("status", status, "Show how far a run is."),
    ("report", report, "Summarize an output as an HTML page or in the terminal."),
    ("view", view, "Page through queries and their reranked passages."),
    ("mine", mine, "Write training data with hard negatives."),
    ("models", models, "List known models, or show one."),
)
for _name, _function, _summary in _COMMANDS:
    app.command(_name, cls=GroupedHelp, short_help=_summary)(_told(_function))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rerank {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it all
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Rerank files of queries and candidate passages with cross-encoder models."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def main() -> NoReturn:
    """Entry point: one line and an exit code for every failure a person can cause; a traceback only with --debug."""
    stand_in_for_closed()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except ClosedPipe:
        die_of_closed_pipe()
        code = 1
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        code, message = _verdict(error)
        complain(message)
        silence_stdout()
    sys.exit(code if isinstance(code, int) else 0)


def _verdict(error: Exception) -> tuple[int, str]:
    """Exit code and the line for a person."""
    if isinstance(error, RerankError):
        return error.exit_code, str(error)
    if isinstance(error, _CommandLineError):
        return 2, f"{getattr(error, 'format_message', error.__str__)().rstrip('.')}. Fix: see --help"
    if isinstance(error, OSError) and error.errno:
        what = f"{error.filename or '<stdout>'}: {os.strerror(error.errno)}"
        return (7 if error.errno in _FULL or not error.filename else 4), what
    return 1, f"internal error: {type(error).__name__}: {error}. Fix: report it with what --debug shows"
