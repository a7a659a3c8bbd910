"""What a flag takes: the conversion of text and of Python values, and the words for what is expected instead."""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Iterable
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin

from rerank_cli.errors import UsageError

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SWITCH = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


def value_of(flag: inspect.Parameter, value: Any) -> Any:
    """The value for a flag, from text or from a Python value. Raises ValueError, which says what the flag takes.

    A sequence is joined with commas for a flag that takes text: `(8, 28)` is `--cutoff-layers 8,28`.
    """
    if value is None and NoneType in get_args(flag.annotation):
        return None
    kind, option = _kind(flag), flag.default
    if get_origin(kind) is list:
        return [os.fspath(item) for item in ([value] if isinstance(value, str | os.PathLike) else value)]
    try:
        found = _converted(kind, value)
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ValueError(f"expected {expected(flag)}") from None
    low, high = getattr(option, "min", None), getattr(option, "max", None)
    if (low is not None and not found >= low) or (high is not None and not found <= high):
        raise ValueError(f"expected {expected(flag)}")
    return found


def _converted(kind: Any, value: Any) -> Any:
    """The value as this kind. Raises ValueError, KeyError, TypeError or OverflowError if it cannot be converted."""
    if kind is bool:
        return value if isinstance(value, bool) else _SWITCH[str(value).lower()]
    if kind in (int, float):
        if isinstance(value, bool):
            raise TypeError
        return float(value) if kind is float else int(value) if isinstance(value, str) else operator.index(value)
    if issubclass(kind, Enum):
        return kind(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return ",".join(map(str, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def expected(flag: inspect.Parameter) -> str:
    """What the flag takes: `a whole number from 1`, `auto, fp32, fp16 or bf16`."""
    kind, option = _kind(flag), flag.default
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        least = "" if option.min is None else f" from {option.min:g}"
        most = "" if option.max is None else f" to {option.max:,g}"
        return ("a whole number" if kind is int else "a number") + least + most
    if issubclass(kind, Enum):
        *others, last = (str(member.value) for member in kind)
        return f"{', '.join(others)} or {last}" if others else last
    return "text"


def _kind(flag: inspect.Parameter) -> Any:
    """The type of a flag, without None."""
    kinds = get_args(flag.annotation)
    return next(kind for kind in kinds if kind is not NoneType) if NoneType in kinds else flag.annotation


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
