"""The known field names of queries, documents and ids, and how a value is found by them.

A name is a key or a dotted path of keys. The first name with a value other than null wins, in the order of the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rerank_cli.display import kind, shown
from rerank_cli.errors import BadRecord, UsageError
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.shapes.texts import TextFields, fields_in, template_of, text_of
from rerank_cli.records import Json

QUERY = ("query", "query.text", "text_1", "q", "question")
QUERY_ID = ("id", "_id", "query_id", "query-id", "qid", "query.qid", "custom_id")
DOCUMENTS = ("documents", "candidates", "docs", "passages", "texts", "text_2", "ctxs")
INPUT = "input"  # Mixedbread's documents; only as a list, because many tables have a column of this name
SPLIT_DOCUMENTS = (("positive", "negative"), ("pos", "neg"))
TEXT = ("text", "segment", "contents", "content", "body", "passage", "passage_text")
DOC_ID = ("id", "_id", "docid", "doc_id", "docno", "pid", "corpus_id", "corpus-id", "passage_id")
FIRST_SCORE = ("score", "sim", "retrieval_score")
TITLE = ("title",)
INSTRUCTION = ("instruction", "prompt")
TRAIN_LISTS = ("pos", "neg")
TRAIN_SCORES = ("pos_scores", "neg_scores")

# In a table of pairs a bare `id` is the document's if the query id has another column, else it is not used.
AMBIGUOUS_ID = ("id", "_id")
PAIR_QUERY_ID = tuple(name for name in QUERY_ID if name not in AMBIGUOUS_ID)
PAIR_DOC_ID = tuple(name for name in DOC_ID if name not in AMBIGUOUS_ID)

_INT64 = 1 << 63

Id = str | int | float | None
"""An id in its own JSON type."""


class Found(NamedTuple):
    """A value and the name it was found under; both None if no name has a value."""

    name: str | None
    value: Json


@dataclass(frozen=True, slots=True)
class Names:
    """The field names of each part of a record: one name if it is mapped, else the table's.

    With `parts`, the text is made of several fields, `text` are their names, and a title is not set before it. `asked`
    is the query of records without one of their own.
    """

    query: tuple[str, ...] = QUERY
    documents: tuple[str, ...] = DOCUMENTS
    text: tuple[str, ...] = TEXT
    id: tuple[str, ...] = QUERY_ID
    doc_id: tuple[str, ...] = DOC_ID
    mapped: frozenset[str] = frozenset()
    title: tuple[str, ...] = TITLE
    score: tuple[str, ...] = FIRST_SCORE
    parts: TextFields | None = None
    asked: str | None = None


def names_from(options: InputOptions) -> Names:
    """The table with the caller's mappings in place. Raises UsageError for mappings that exclude each other."""
    given = {
        "query": options.query_field,
        "documents": options.documents_field,
        "text": options.text_field,
        "id": options.id_field,
        "doc_id": options.doc_id_field,
        "title": options.title_field,
        "score": options.score_field,
    }
    mapped: dict[str, tuple[str, ...]] = {part: (name,) for part, name in given.items() if name}
    parts = None
    if options.text_template:
        parts = template_of(options.text_template)
    elif options.text_field and "," in options.text_field:
        parts = TextFields(fields_in(options.text_field))
    if parts:
        if options.text_field and options.text_template:
            raise UsageError("--text-field and --text-template: give one of them")
        if options.title_field:
            raise UsageError("--title-field is for one text field. Fix: name the title among the text fields")
        mapped["text"] = parts.names
    if options.query is not None:
        if options.query_field:
            raise UsageError("--query and --query-field: give one of them")
        if not options.query or options.query.isspace():
            raise UsageError("--query: the text is empty")
    return Names(**mapped, mapped=frozenset(mapped), parts=parts, asked=options.query)


def lookup(record: Mapping[str, Json], name: str) -> Json:
    """The value under a name, None if missing. A key that contains the dot comes before the path."""
    value = record.get(name)
    if value is not None or "." not in name:
        return value
    found: Json = record
    for key in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def first(record: Mapping[str, Json], names: Iterable[str]) -> Found:
    """The first of the names that has a value."""
    for name in names:
        value = lookup(record, name)
        if value is not None:
            return Found(name, value)
    return Found(None, None)


def present(record: Mapping[str, Json], names: Iterable[str]) -> bool:
    """Does the record have one of the names, even with a null value?"""
    return any(name in record or lookup(record, name) is not None for name in names)


def without(record: Mapping[str, Json], used: Iterable[str | None]) -> dict[str, Json]:
    """A copy without the used names. Of a path only the last key is removed, and objects that become empty by it."""
    rest = dict(record)
    for name in used:
        if name is not None and rest.pop(name, None) is None and "." in name:
            key, path = name.split(".", 1)
            if isinstance(inner := rest.get(key), dict):
                rest[key] = without(inner, (path,))
                if not rest[key]:
                    del rest[key]
    return rest


def an_id(value: Json, what: str) -> Id:
    """An id in its own JSON type. Raises BadRecord if the value cannot be an id."""
    kind_of = type(value)
    if kind_of is str or kind_of is int or value is None:
        return value  # type: ignore[no-any-return]
    if isinstance(value, bytes):
        return text_of(value, what)
    # orjson reads an integer of more than 64 bits as a float, which loses digits.
    if kind_of is float and abs(value) < _INT64:
        return float(value)
    got = "a number over 64 bits" if kind_of is float else kind(value)
    raise BadRecord("bad_id", f"the {what} cannot be used (got {got}, expected a string or a 64-bit number)")


def key_of(name: Json) -> str:
    """An id as text, as compared between files and written in runs: whole numbers without a decimal point."""
    if isinstance(name, str):
        return name
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def a_number(value: Json) -> float | None:
    """The value as a float, None if it is not a number."""
    return value if type(value) is float else float(value) if type(value) is int else None


def first_stage_score(record: Mapping[str, Json], names: tuple[str, ...] = FIRST_SCORE) -> float | None:
    """The first of the known score fields that holds a number."""
    for name in names:
        value = a_number(record.get(name))
        if value is not None:
            return value
    return None


def mapped_score(record: Mapping[str, Json], fields: Names) -> float | None:
    """The value of the mapped score field, also from a string of digits; None if it has none. Raises BadRecord."""
    name, value = first(record, fields.score)
    found = as_score(value)
    if value is not None and found is None:
        got = f"got {shown(repr(value), 40)}, expected a finite number"
        raise BadRecord("bad_score", f"`{shown(str(name), 40)}` is not a score ({got})")
    return found


def as_score(value: Json) -> float | None:
    """A finite number, or a string of one (GraphQL and tables without types have those); else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
