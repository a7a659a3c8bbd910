"""The known field names of queries, documents and ids, and how a value is found by them.

A name is a key or a dotted path of keys. The first name with a value other than null wins, in the order of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rerank_cli.display import kind, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.options import InputOptions
from rerank_cli.records import Json

QUERY = ("query", "query.text", "text_1", "q", "question")
QUERY_ID = ("id", "_id", "query_id", "query-id", "qid", "query.qid", "custom_id")
DOCUMENTS = ("documents", "candidates", "docs", "passages", "texts", "text_2", "ctxs")
SPLIT_DOCUMENTS = (("positive", "negative"), ("pos", "neg"))
TEXT = ("text", "segment", "contents", "content", "body", "passage", "passage_text")
DOC_ID = ("id", "_id", "docid", "doc_id", "docno", "pid", "corpus_id", "corpus-id", "passage_id")
FIRST_SCORE = ("score", "sim", "retrieval_score")
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
    """The field names of each part of a record: one name if it is mapped, else the table's."""

    query: tuple[str, ...] = QUERY
    documents: tuple[str, ...] = DOCUMENTS
    text: tuple[str, ...] = TEXT
    id: tuple[str, ...] = QUERY_ID
    doc_id: tuple[str, ...] = DOC_ID
    mapped: frozenset[str] = frozenset()


def names_from(options: InputOptions) -> Names:
    """The table with the caller's mappings in place."""
    parts = ("query", "documents", "text", "id", "doc_id")
    given = (options.query_field, options.documents_field, options.text_field, options.id_field, options.doc_id_field)
    mapped = {part: (name,) for part, name in zip(parts, given, strict=True) if name}
    return Names(**mapped, mapped=frozenset(mapped))


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


def text_of(value: bytes, what: str) -> str:
    """Text that a Parquet file holds as bytes. Raises BadRecord if it is not UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRecord("bad_utf8", f"the {what} is not valid UTF-8 (got {shown(repr(value))})") from None


def key_of(name: Json) -> str:
    """An id as text, as compared between files and written in runs: whole numbers without a decimal point."""
    if isinstance(name, str):
        return name
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def a_number(value: Json) -> float | None:
    """The value as a float, None if it is not a number."""
    return value if type(value) is float else float(value) if type(value) is int else None


def first_stage_score(record: Mapping[str, Json]) -> float | None:
    """The first of the known score fields that holds a number."""
    for name in FIRST_SCORE:
        value = a_number(record.get(name))
        if value is not None:
            return value
    return None
