"""The `rerank` command: assembles the sub-commands without heavy imports, and maps every outcome to an exit code."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from rerank_cli import __version__
from rerank_cli.cli import bench, check, inspect, merge, mine, models, report, run, score, status, train, view
from rerank_cli.cli import eval as evaluation
from rerank_cli.cli.flags.declare import FlagCommand
from rerank_cli.cli.terminal.streams import die_of_closed_pipe, say, silence_stdout, stand_in_for_closed
from rerank_cli.errors import ClosedPipe, RerankError, UsageError

# The base class of typer's own errors about the command line; its name depends on the version.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

EPILOG = (
    "Every flag can be set in the environment too: RERANK_MAX_LENGTH=256 is --max-length 256.\n\n"
    "Exit codes: 0 done, 1 internal error, 2 bad flags, 3 done but records were rejected, 4 bad input, 5 bad model, "
    "6 refused, 7 output not written, 10 stopped by --max-duration, 128+N ended by signal N."
)


class _Commands(TyperGroup):
    """Suggests a command for a word that is none: `run` for a file and for a flag, else one of a similar name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except _CommandLineError as error:
            name = getattr(error, "option_name", None)
            if name is None or not any(name in parameter.opts for parameter in self.commands["run"].params):
                raise
            raise UsageError(f"{name}: flags follow the name of a command. Fix: {_as_run(given)}") from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word in self.commands or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        fix = "rerank --help lists the commands"
        if not word.isalpha() or Path(word).exists():
            fix = _as_run(args)
        elif near := get_close_matches(word, self.commands, 1):
            fix = f"rerank {shlex.join([*near, *args[1:]])}"
        raise UsageError(f"{word}: no such command. Fix: {fix}")


def _as_run(args: list[str]) -> str:
    return f"rerank run {shlex.join(args)}"


app = typer.Typer(
    cls=_Commands,
    name="rerank",
    help="Rerank files of queries and candidate passages with cross-encoder models.\n\n"
    "  rerank run candidates.jsonl -o reranked.jsonl",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
_COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("run", run.run, "Rerank the candidates of every query in a file."),
    ("score", score.score, "Score a few documents given on the command line."),
    ("check", check.check, "Validate an input and count its tokens."),
    ("inspect", inspect.inspect, "Show how the model reads one pair."),
    ("bench", bench.bench, "Measure speed on a sample, and estimate the whole file."),
    ("eval", evaluation.evaluate, "Measure a ranking by relevance judgements."),
    ("merge", merge.merge, "Put the outputs of all shards together."),
    ("status", status.status, "Show how far a run is."),
    ("report", report.report, "Summarize an output as an HTML page or in the terminal."),
    ("view", view.view, "Page through queries and their reranked passages."),
    ("mine", mine.mine, "Write training data with hard negatives."),
    ("train", train.train, "Fine-tune a reranker."),
    ("models", models.models, "List known models, or show one."),
)
for _name, _function, _summary in _COMMANDS:
    app.command(_name, cls=FlagCommand, short_help=_summary)(_function)


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
    """Entry point: every failure becomes one line on stderr and an exit code; with --debug also a traceback."""
    stand_in_for_closed()
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ClosedPipe:
        die_of_closed_pipe()
        code = 1
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        code, message = _exit_code(error)
        with suppress(OSError):  # stderr may have failed too
            say(message)
        silence_stdout()
    sys.exit(code if isinstance(code, int) else 0)


def _exit_code(error: Exception) -> tuple[int, str]:
    """Exit code and message."""
    if isinstance(error, RerankError):
        return error.exit_code, str(error)
    if isinstance(error, _CommandLineError):
        message = getattr(error, "format_message", error.__str__)().rstrip(".")
        return 2, f"{message}. Fix: see --help"
    if isinstance(error, OSError) and error.errno:
        what = f"{error.filename or '<stdout>'}: {os.strerror(error.errno)}"
        return (7 if error.errno in _FULL or not error.filename else 4), what
    return 1, f"internal error: {type(error).__name__}: {error}. Fix: report it with the traceback of --debug"
