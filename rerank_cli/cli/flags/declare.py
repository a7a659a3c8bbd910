"""Declares flags, and makes commands of functions with flags.

A flag is the default value of a parameter: `max_length: int | None = flag(None, "Tokens of a pair.", "N", min=1)` is
`--max-length N`, and reads `RERANK_MAX_LENGTH` from the environment. A bundle is a function whose parameters are flags
and whose result is an options object; its parameters may be bundles too. It is the default value of a command's
parameter: `command` puts its flags in place of that parameter, and passes a function that returns the result.
`from_keywords` calls such a function from Python.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from rerank_cli.cli.flags.values import value_of
from rerank_cli.errors import ClosedPipe, UsageError
from rerank_cli.storage.remote import refuse_remote

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
LEARNING = "Learning"
LOSS = "Loss"
LORA = "Adapters"
HELD_OUT = "Evaluation while training"
RECOVERY = "Resume and errors"
PROGRESS = "Progress and settings"
_PANELS = (
    COMMON, INPUT, BY_ID, LEARNING, LOSS, HELD_OUT, LORA, MODEL, PROMPT, LAYERS, DEVICE, RANKING, OUTPUT, RECOVERY,
    PROGRESS,
)  # fmt: skip
_FIRST = ("model", "output", "top_n")  # come first in every help text
_ALONE = {
    "--ray": re.compile(r"auto|local|[a-z]+://.*|(\[[0-9a-fA-F:]+\]|[\w.-]+):\d+")
}  # the word after it is its value
_LOWEST = re.compile(r"; x>=[\d.]+|x>=[\d.]+; |\s*\[x>=[\d.]+\]")


def flag(
    default: Any,
    help: str,
    metavar: str | None = None,
    *,
    short: str | None = None,
    long: str | None = None,
    panel: str = COMMON,
    local: bool = False,
    **settings: Any,
) -> Any:
    """Declare a flag; `...` as default makes it required. Returns a partial function from its name to a typer option.

    `long` replaces the name derived from the parameter; `local` refuses paths with a scheme, such as `s3://`;
    `settings` go to typer (`min`, `max`, `callback`, …).
    """

    def option(name: str, *, panel: str, local: bool) -> Any:  # noqa: ARG001 - read by `bound`
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

    return partial(option, panel=panel, local=local)


def moved(shared: Any, panel: str) -> Any:
    """The same flag in another group of the help text."""
    return partial(shared, panel=panel)


def command(function: Callable[..., R]) -> Callable[..., R]:
    """Make a typer command of a function whose parameters are flags, arguments and bundles; it gets `--debug` too.

    The command raises ClosedPipe for a closed pipe, which typer would treat as an ordinary failure.
    """
    parameters = flags_of(function)
    debug = flag(False, "Show the traceback of an error.", panel=PROGRESS)("debug")
    parameters.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=debug, annotation=bool))

    @functools.wraps(function)
    def wrapper(*, debug: bool, **values: Any) -> R:  # noqa: ARG001 - main looks for --debug itself
        try:
            result = bound(function, values)()
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError as error:
            raise ClosedPipe from error
        return result

    del wrapper.__wrapped__
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def from_keywords(function: Callable[..., R], settings: Mapping[str, Any]) -> R:
    """Call a function of flags and bundles from Python, with keywords named like the flags.

    Flags that are not in `settings` have their defaults; environment and files are not read. Raises UsageError for a
    value that the flag does not take, TypeError for a name that is not a flag.
    """
    flags = {flag.name: flag for flag in flags_of(function)}
    values = {name: flag.default.default for name, flag in flags.items()}
    for name, value in settings.items():
        if name not in flags:
            near = get_close_matches(name, flags, 1)
            raise TypeError(f"unexpected keyword {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        try:
            values[name] = value_of(flags[name], value)
        except ValueError as error:
            raise UsageError(f"{name}={value!r}: {error}") from None
    return bound(function, values)()


def flags_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function with their types evaluated and their flags as typer options, bundles expanded."""
    found: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        bundle = parameter.default if inspect.isfunction(parameter.default) else None
        found += flags_of(bundle) if bundle else [_declared(function, parameter)]
    return found


def bound(function: Callable[..., R], values: dict[str, Any]) -> Callable[[], R]:
    """The function with its flags from `values`, and for each bundle a function that returns its result.

    Raises UsageError for a remote path where only a local one can be used.
    """
    taken = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if inspect.isfunction(parameter.default):
            taken[name] = bound(parameter.default, values)
            continue
        taken[name] = values[name]
        if isinstance(parameter.default, partial) and parameter.default.keywords["local"]:
            refuse_remote(values[name], "--" + name.replace("_", "-"))
    return partial(function, **taken)


def _declared(function: Callable[..., Any], parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with its type evaluated and its flag as a typer option."""
    kind, default = parameter.annotation, parameter.default
    if isinstance(kind, str):
        kind = eval(kind, function.__globals__)  # our own source text, as in typing.get_type_hints
    option = default(parameter.name) if isinstance(default, partial) else default
    return parameter.replace(annotation=kind, default=option, kind=inspect.Parameter.KEYWORD_ONLY)


class FlagCommand(TyperCommand):
    """A command of ours: its help lists flags in groups, in the same order for every command.

    A value that a flag does not take is a UsageError that names where the value comes from and what is expected.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = with_values(args)
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            flags = inspect.signature(self.callback).parameters if self.callback else {}
            flag = flags.get(getattr(error.param, "name", None) or "")
            if flag is None or error.param is None:
                raise
            value, source = error.param.consume_value(ctx, self.make_parser(ctx).parse_args(given)[0])
            if value is None:
                raise  # it is missing
            try:
                value_of(flag, value)
            except ValueError as reason:
                raise UsageError(f"{_given_as(error.param, value, source, ctx)}: {reason}") from None
            raise

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


def with_values(args: list[str]) -> list[str]:
    """The arguments with an empty value for flags that stand alone: typer has no flags whose value may be left out."""
    found = list(args)
    for place in reversed(range(len(found))):
        value = _ALONE.get(found[place])
        if value and "--" not in found[:place] and not any(map(value.fullmatch, found[place + 1 : place + 2])):
            found[place] += "="
    return found


def _given_as(flag: Any, value: Any, source: Any, ctx: Any) -> str:
    """A value as it was given: `--top-n 0`, `RERANK_TOP_N=0` or `--config FILE: top-n = 0`."""
    name = max(flag.opts, key=len)
    if source.name == "ENVIRONMENT":
        return f"{flag.envvar}={value}"
    if source.name == "DEFAULT_MAP":
        return f"--config {ctx.params.get('config')}: {name.removeprefix('--')} = {value}"
    return f"{name} {value}"
