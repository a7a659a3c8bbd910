"""How a flag is declared, and how it reaches its command.

A flag is the default value of a parameter: `max_length: int | None = flag(None, "Tokens of a pair.", "N", min=1)` is
`--max-length N`, and reads `RERANK_MAX_LENGTH` from the environment. A bundle is a function whose parameters are flags
and whose result is an options object; `command` puts the flags of each bundle in place of the command's parameter of
that name, and calls the command with the results.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from rerank_cli.errors import UsageError

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
_FIRST = ("model", "output", "top_n")  # of the common flags, in every help text
_LOWEST = re.compile(r"; x>=[\d.]+|x>=[\d.]+; |\s*\[x>=[\d.]+\]")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag before it has a name. `long` replaces the name made of the parameter's; `settings` are typer's."""

    default: Any
    help: str
    metavar: str | None = None
    short: str | None = None
    long: str | None = None
    panel: str = COMMON
    settings: dict[str, Any] = field(default_factory=dict)

    def option(self, name: str) -> Any:
        """The typer option for a parameter of this name."""
        long = self.long or "--" + name.replace("_", "-")
        variable = "RERANK_" + long.removeprefix("--").partition("/")[0].replace("-", "_").upper()
        if self.default is True and "/" not in long:
            long = f"{long}/--no-{long.removeprefix('--')}"
        return typer.Option(
            self.default,
            *filter(None, (long, self.short)),
            help=self.help,
            metavar=self.metavar,
            envvar=None if self.settings.get("is_eager") or name == "debug" else variable,
            show_envvar=False,
            rich_help_panel=self.panel,
            **self.settings,
        )


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
    """Declare a flag; `settings` go to typer (`min`, `max`, `callback`, …). `...` as default makes it required."""
    return Flag(default, help, metavar, short, long, panel, settings)


def moved(shared: Any, panel: str) -> Any:
    """The same flag in another group of the help text."""
    return replace(shared, panel=panel)


def command(**bundles: Callable[..., Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Make a typer command of a function whose parameters are flags, arguments and bundles."""

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        parts = {name: [_declared(make, p) for p in _parameters(make)] for name, make in bundles.items()}
        parameters: list[inspect.Parameter] = []
        for parameter in _parameters(function):
            parameters += parts.get(parameter.name) or [_declared(function, parameter)]

        @functools.wraps(function)
        def wrapper(**values: Any) -> R:
            for name, make in bundles.items():
                values[name] = functools.partial(make, **{part.name: values.pop(part.name) for part in parts[name]})
            return function(**values)

        del wrapper.__wrapped__
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _declared(function: Callable[..., Any], parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with its type evaluated and its flag as a typer option."""
    kind = parameter.annotation
    if isinstance(kind, str):
        kind = eval(kind, function.__globals__)  # as typing.get_type_hints does; ours alone
    default = parameter.default
    option = default.option(parameter.name) if isinstance(default, Flag) else default
    return parameter.replace(annotation=kind, default=option, kind=inspect.Parameter.KEYWORD_ONLY)


class GroupedHelp(TyperCommand):
    """A command whose help lists its flags in groups, in the same order for every command."""

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
    """`8,28` as (8, 28), sorted and without repetition. UsageError names the flag."""
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UsageError(f"{name} {text}: expected numbers separated by commas, like 8,28") from None


def duration(text: str | None, name: str) -> float | None:
    """Seconds of `90`, `90s`, `30m`, `7h30m` or `2d`. UsageError names the flag."""
    if text is None:
        return None
    plain = f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else text
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", plain)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != plain or seconds <= 0:
        raise UsageError(f"{name} {text}: not a time (expected 90s, 30m, 7h30m or the like)")
    return seconds
