"""The names under which the world keeps queries, documents and ids, and how a value is found by them.

A name is a key or a dotted path of keys. The first name whose value is not null wins, in the order of the table.
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

# In a table of pairs a bare `id` belongs to the document if the query has a column of its own, else to nobody.
AMBIGUOUS_ID = ("id", "_id")
PAIR_QUERY_ID = tuple(name for name in QUERY_ID if name not in AMBIGUOUS_ID)
PAIR_DOC_ID = tuple(name for name in DOC_ID if name not in AMBIGUOUS_ID)

_INT64 = 1 << 63

Id = str | int | float | None
"""An id in its own JSON type."""


class Found(NamedTuple):
    """A value and the name it was found under; both None where no name has a value."""

    name: str | None
    value: Json


@dataclass(frozen=True, slots=True)
class Names:
    """Where to look for each part of a record: one name if it was mapped, else the table's."""

    query: tuple[str, ...] = QUERY
    documents: tuple[str, ...] = DOCUMENTS
    text: tuple[str, ...] = TEXT
    id: tuple[str, ...] = QUERY_ID
    doc_id: tuple[str, ...] = DOC_ID
    mapped: frozenset[str] = frozenset()


def names_from(options: InputOptions) -> Names:
    """The table with the caller's mappings in place."""
    given = {
        "query": options.query_field,
        "documents": options.documents_field,
        "text": options.text_field,
        "id": options.id_field,
        "doc_id": options.doc_id_field,
    }
    mapped = frozenset(part for part, name in given.items() if name)
    return Names(
        query=_or_table(options.query_field, QUERY),
        documents=_or_table(options.documents_field, DOCUMENTS),
        text=_or_table(options.text_field, TEXT),
        id=_or_table(options.id_field, QUERY_ID),
        doc_id=_or_table(options.doc_id_field, DOC_ID),
        mapped=mapped,
    )


def _or_table(name: str | None, table: tuple[str, ...]) -> tuple[str, ...]:
    return (name,) if name else table


def lookup(record: Mapping[str, Json], name: str) -> Json:
    """The value under a name, None if there is none. A key with a dot in it comes before the path."""
    value = record.get(name)
    if value is not None or "." not in name:
        return value
    here: Json = record
    for key in name.split("."):
        if not isinstance(here, Mapping):
            return None
        here = here.get(key)
    return here


def first(record: Mapping[str, Json], names: Iterable[str]) -> Found:
    """The first of the names that has a value."""
    for name in names:
        value = lookup(record, name)
        if value is not None:
            return Found(name, value)
    return Found(None, None)


def present(record: Mapping[str, Json], names: Iterable[str]) -> bool:
    """Is one of the names there, be its value null?"""
    return any(name in record or lookup(record, name) is not None for name in names)


def without(record: Mapping[str, Json], used: Iterable[str | None]) -> dict[str, Json]:
    """A copy without the names that were used; of a path only its last key goes, and objects that this leaves empty."""
    rest = dict(record)
    for name in used:
        if name is not None and rest.pop(name, None) is None and "." in name:
            _drop_path(rest, *name.split(".", 1))
    return rest


def _drop_path(record: dict[str, Json], key: str, path: str) -> None:
    inner = record.get(key)
    if isinstance(inner, dict):
        record[key] = without(inner, (path,))
        if not record[key]:
            del record[key]


def an_id(value: Json, what: str) -> str | int | float | None:
    """An id in its own type. Raises BadRecord for what cannot be one."""
    kind_of = type(value)
    if kind_of is str or kind_of is int or value is None:
        return value  # type: ignore[no-any-return]
    if isinstance(value, bytes):
        return text_of(value, what)
    # orjson reads an integer of more than 64 bits as a float, and what it stood for is lost.
    if kind_of is float and abs(value) < _INT64:
        return float(value)
    got = "a number over 64 bits" if kind_of is float else kind(value)
    raise BadRecord("bad_id", f"the {what} cannot be used (got {got}, expected a string or a 64-bit number)")


def text_of(value: bytes, what: str) -> str:
    """Text that a Parquet file holds as bytes."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRecord("bad_utf8", f"the {what} is not valid UTF-8 (got {shown(repr(value))})") from None


def key_of(name: Json) -> str:
    """An id as it is compared between files and written in runs: its text, whole numbers without a point."""
    if isinstance(name, str):
        return name
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def a_number(value: Json) -> float | None:
    """A first-stage score, None for what is not a number."""
    return value if type(value) is float else float(value) if type(value) is int else None


def first_number(record: Mapping[str, Json], names: Iterable[str] = FIRST_SCORE) -> float | None:
    """The first of the names that holds a number."""
    for name in names:
        value = a_number(record.get(name))
        if value is not None:
            return value
    return None
