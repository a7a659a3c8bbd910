"""Declares flags, and makes commands of functions with flags.

A flag is the default value of a parameter: `max_length: int | None = flag(None, "Tokens of a pair.", "N", min=1)` is
`--max-length N`, and reads `RERANK_MAX_LENGTH` from the environment. A bundle is a function whose parameters are flags
and whose result is an options object. It is the default value of a command's parameter: `command` puts its flags in
place of that parameter, and passes a function that returns the result.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from rerank_cli.errors import ClosedPipe, UsageError

R = TypeVar("R")

COMMON = "Options"
INPUT = "Input"
BY_ID = "Candidates by id"
MODEL = "Model"
PROMPT = "Prompts of decoders"
LAYERS = "Layerwise and lightweight models"
DEVICE = "Device and speed"
RANKING = "Ranking and evaluation"
OUTPUT = "Output"
RECOVERY = "Resume and errors"
PROGRESS = "Progress and settings"
_PANELS = (COMMON, INPUT, BY_ID, MODEL, PROMPT, LAYERS, DEVICE, RANKING, OUTPUT, RECOVERY, PROGRESS)
_FIRST = ("model", "output", "top_n")  # come first in every help text
_LOWEST = re.compile(r"; x>=[\d.]+|x>=[\d.]+; |\s*\[x>=[\d.]+\]")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def flag(
    default: Any,
    help: str,
    metavar: str | None = None,
    *,
    short: str | None = None,
    long: str | None = None,
    panel: str = COMMON,
    **settings: Any,
) -> Any:
    """Declare a flag; `...` as default makes it required. Returns a partial function from its name to a typer option.

    `long` replaces the name derived from the parameter; `settings` go to typer (`min`, `max`, `callback`, …).
    """

    def option(name: str, *, panel: str) -> Any:
        words = long or "--" + name.replace("_", "-")
        variable = "RERANK_" + words.removeprefix("--").partition("/")[0].replace("-", "_").upper()
        if default is True and "/" not in words:
            words = f"{words}/--no-{words.removeprefix('--')}"
        return typer.Option(
            default,
            *filter(None, (words, short)),
            help=help,
            metavar=metavar,
            envvar=None if settings.get("is_eager") or name == "debug" else variable,
            show_envvar=False,
            rich_help_panel=panel,
            **settings,
        )

    return partial(option, panel=panel)


def moved(shared: Any, panel: str) -> Any:
    """The same flag in another group of the help text."""
    return partial(shared, panel=panel)


def command(function: Callable[..., R]) -> Callable[..., R]:
    """Make a typer command of a function whose parameters are flags, arguments and bundles; it gets `--debug` too.

    The command raises ClosedPipe for a closed pipe, which typer would treat as an ordinary failure.
    """
    bundles: dict[str, tuple[Callable[..., Any], list[inspect.Parameter]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if inspect.isfunction(make := parameter.default):
            flags = [_declared(make, part) for part in inspect.signature(make).parameters.values()]
            bundles[parameter.name] = make, flags
            parameters += flags
        else:
            parameters.append(_declared(function, parameter))
    debug = flag(False, "Show the traceback of an error.", panel=PROGRESS)("debug")
    parameters.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=debug, annotation=bool))

    @functools.wraps(function)
    def wrapper(*, debug: bool, **values: Any) -> R:  # noqa: ARG001 - main looks for --debug itself
        for name, (make, flags) in bundles.items():
            values[name] = partial(make, **{part.name: values.pop(part.name) for part in flags})
        try:
            result = function(**values)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError as error:
            raise ClosedPipe from error
        return result

    del wrapper.__wrapped__
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _declared(function: Callable[..., Any], parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with its type evaluated and its flag as a typer option."""
    kind, default = parameter.annotation, parameter.default
    if isinstance(kind, str):
        kind = eval(kind, function.__globals__)  # our own source text, as in typing.get_type_hints
    option = default(parameter.name) if isinstance(default, partial) else default
    return parameter.replace(annotation=kind, default=option, kind=inspect.Parameter.KEYWORD_ONLY)


class GroupedHelp(TyperCommand):
    """A command whose help lists flags in groups, in the same order for every command."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        order = {name: place for place, name in enumerate(_FIRST)}
        for parameter in sorted(self.get_params(ctx), key=lambda p: order.get(p.name or "", len(order))):
            if record := parameter.get_help_record(ctx):
                panel = getattr(parameter, "rich_help_panel", None) or PROGRESS
                if parameter.param_type_name == "argument":
                    name = str(getattr(parameter, "metavar", None) or record[0]).strip("[]")
                    record, panel = (name, record[1]), "Arguments"
                groups.setdefault(panel, []).append((record[0], _LOWEST.sub("", record[1])))
        for panel in ("Arguments", *_PANELS):
            if panel in groups:
                with formatter.section(panel):
                    formatter.write_dl(groups[panel])


def whole_numbers(text: str | None, name: str) -> tuple[int, ...] | None:
    """`8,28` as (8, 28), sorted and without repetition. Raises UsageError, which names the flag."""
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UsageError(f"{name} {text}: expected numbers separated by commas, like 8,28") from None


def duration(text: str | None, name: str) -> float | None:
    """Seconds of `90`, `90s`, `30m`, `7h30m` or `2d`. Raises UsageError, which names the flag."""
    if text is None:
        return None
    plain = f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else text
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", plain)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != plain or seconds <= 0:
        raise UsageError(f"{name} {text}: not a time (expected 90s, 30m, 7h30m or the like)")
    return seconds
