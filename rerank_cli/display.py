"""Values from files in messages: short, on one line, without control characters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_RAW_LIMIT = 500
# The query of a web address, which may hold a signature or a token, and a name and password before the host.
_QUERY = re.compile(r"(\bhttps?://[^\s?#'\"<>]*)[?#](?!…)[^\s'\"<>]*?(?=[:;,.)]?(?:[\s'\"<>]|$))", re.IGNORECASE)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"<>]*@", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """The text with web addresses cut before their query, and without what stands before `@host`."""
    return _USER.sub(r"\1", _QUERY.sub(r"\1?…", text)) if "://" in text else text


def shown(text: str, limit: int = 80) -> str:
    """Cut to `limit` characters, without secrets in addresses, control characters and lone surrogates escaped."""
    if "://" in text:
        text = without_secrets(text)
    cut = text[:limit] + ("…" if len(text) > limit else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in cut)


def counted(number: int, noun: str) -> str:
    """`1 pair`, `2,000 pairs`; `1 query`, `2 queries`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def kind(value: Any) -> str:
    """The JSON name of a value's type, with an article."""
    if value is None:
        return "null"
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", dict: "an object", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def names(items: Iterable[object]) -> str:
    """Field names for a message, at most the first 12."""
    all_names = [shown(str(item), 40) for item in items]
    return ", ".join(all_names[:12]) + (", …" if len(all_names) > 12 else "") if all_names else "no fields"


def excerpt(raw: bytes) -> str:
    """A record's bytes as text, cut to 500 characters; invalid UTF-8 is replaced."""
    text = raw[: 4 * _RAW_LIMIT].decode("utf-8", "replace").rstrip("\r\n")
    return text[:_RAW_LIMIT] + ("…" if len(text) > _RAW_LIMIT or len(raw) > 4 * _RAW_LIMIT else "")


def quoted(items: Iterable[str]) -> str:
    """Expected field names, each in backticks."""
    return ", ".join(f"`{shown(item, 40)}`" for item in items)
