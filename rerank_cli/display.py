"""How a value from a file is shown to a person: short, on one line, with nothing a terminal would act on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_LIMIT = 80
_RAW_LIMIT = 500


def shown(text: str, limit: int = _LIMIT) -> str:
    """Cut to `limit` characters, control characters and lone surrogates escaped."""
    cut = text[:limit] + ("…" if len(text) > limit else "")
    return "".join(char if char.isprintable() else _escape(char) for char in cut)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def kind(value: Any) -> str:
    """The JSON name of a value's type, with an article."""
    if value is None:
        return "null"
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", dict: "an object", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def names(items: Iterable[object], most: int = 12) -> str:
    """Field names for a message, cut to the first dozen."""
    all_names = [shown(str(item), 40) for item in items]
    return ", ".join(all_names[:most]) + (", …" if len(all_names) > most else "") if all_names else "no fields"


def excerpt(raw: bytes) -> str:
    """A record's bytes as text, whatever they are, cut to a readable length."""
    text = raw[: 4 * _RAW_LIMIT].decode("utf-8", "replace").rstrip("\r\n")
    return text[:_RAW_LIMIT] + ("…" if len(text) > _RAW_LIMIT or len(raw) > 4 * _RAW_LIMIT else "")


def quoted(items: Iterable[str]) -> str:
    """Names that were looked for, each in backticks."""
    return ", ".join(f"`{shown(item, 40)}`" for item in items)
