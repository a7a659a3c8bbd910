"""The text of a document made of several of its fields: joined with spaces, or put into a template.

A field that a document lacks, or that is null, leaves nothing behind; a document without any of the fields is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Formatter

from rerank_cli.display import kind, quoted, shown
from rerank_cli.errors import BadRecord, UsageError
from rerank_cli.records import Json

_ESCAPE = re.compile(r"\\([nt\\])")
_ESCAPED = {"n": "\n", "t": "\t", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class TextFields:
    """The fields `names`, joined with spaces; with `literals`, one more than names, put between those."""

    names: tuple[str, ...]
    literals: tuple[str, ...] = ()

    def text(self, find: Callable[[str], Json]) -> str:
        """The text of a document, without white space at its ends. `find` gives a field's value, None if it has none.

        Raises BadRecord if no field has a value, or one has a value that is not text, a number or a list of texts.
        """
        parts = [plain_text(find(name), name) for name in self.names]
        if all(part is None for part in parts):
            raise BadRecord("missing_text", f"the document has none of the text fields (expected {quoted(self.names)})")
        if not self.literals:
            return " ".join([part for part in parts if part]).strip()
        pairs = zip(self.literals, [*parts, None], strict=True)
        return "".join([literal + (part or "") for literal, part in pairs]).strip()


def fields_in(given: str, flag: str = "--text-field") -> tuple[str, ...]:
    """`title,body` as ("title", "body"). Raises UsageError, which names the flag."""
    names = tuple(name.strip() for name in given.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"{flag} {shown(given)}: expected different names with commas between, like title,body")
    return names


def template_of(given: str, flag: str = "--text-template") -> TextFields:
    r"""`{title}\n{doc.body}` as its fields; `\n`, `\t`, `\\` are escapes. Raises UsageError, which names the flag."""
    plain = _ESCAPE.sub(lambda escape: _ESCAPED[escape[1]], given)
    names: list[str] = []
    literals = [""]
    try:
        for literal, name, spec, conversion in Formatter().parse(plain):
            literals[-1] += literal
            if name is not None:
                if not name or spec or conversion:
                    raise ValueError("a field is not a plain name")
                names.append(name)
                literals.append("")
    except ValueError as error:
        expected = r"expected fields in braces, like '{title}\n{body}'; {{ and }} are braces"
        raise UsageError(f"{flag} {shown(given)}: {error} ({expected})") from None
    if not names:
        raise UsageError(f"{flag} {shown(given)}: names no field (expected one in braces, like '{{title}} {{body}}')")
    return TextFields(tuple(names), tuple(literals))


def plain_text(value: Json, name: str) -> str | None:
    """A field's value as text: a string, a number, or a list of strings joined with spaces. Raises BadRecord."""
    if value is None or type(value) is str:
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes) and all(type(item) is str for item in value):
        return " ".join(value)
    if isinstance(value, bytes):
        return text_of(value, f"field `{shown(name, 40)}`")
    if isinstance(value, bool | dict | list):
        raise BadRecord("bad_text", f"`{shown(name, 40)}` is not text (got {kind(value)})")
    return str(value)  # numbers, dates and decimals


def text_of(value: bytes, what: str) -> str:
    """Text that a Parquet file holds as bytes. Raises BadRecord if it is not UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRecord("bad_utf8", f"the {what} is not valid UTF-8 (got {shown(repr(value))})") from None
