"""The documents of a record to candidates: text, id, title and first-stage score of each.

A list may mix strings and objects. The order is kept; a document without text rejects the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.fields import (
    TITLE,
    Names,
    an_id,
    first,
    first_stage_score,
    lookup,
    mapped_score,
    present,
)
from rerank_cli.formats.shapes.hits import Layout, hit_to_candidate, layout_of
from rerank_cli.formats.shapes.texts import text_of
from rerank_cli.records import Candidate, Json

_NESTED = "doc"


def candidates_from(items: Json, fields: Names, where: str) -> tuple[Candidate, ...]:
    """One candidate per document. Raises BadRecord if `items` is not a list, or a document is bad."""
    if not isinstance(items, list):
        raise BadRecord("bad_documents", f"`{shown(where, 40)}` is not a list (got {kind(items)})")
    return distinct(
        [Candidate(item, item) if type(item) is str else _other(item, i, fields) for i, item in enumerate(items)]
    )


def distinct(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates. Raises BadRecord if two have the same id."""
    ids = [candidate.id for candidate in candidates if candidate.id is not None]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise BadRecord("duplicate_id", f"two documents have the same id (got {shown(repr(twice))} more than once)")
    return tuple(candidates)


def _other(item: Json, index: int, fields: Names) -> Candidate:
    """The candidate of a document that is not a string."""
    try:
        if isinstance(item, dict):
            if (layout := hit_in(item, fields)) is not None:
                return hit_to_candidate(item, layout, fields)
            text = full_text(item, fields)
            name = first(item, fields.doc_id).value
            if name is None and isinstance(inner := item.get(_NESTED), dict):
                name = first(inner, fields.doc_id).value
            return Candidate(text, item, an_id(name, "id"), score_of(item, fields))
        if isinstance(item, bytes):
            text = text_of(item, "text")
            return Candidate(text, text)
    except BadRecord as error:
        raise BadRecord(error.code, f"document {index}: {error}") from None
    code = "null_text" if item is None else "bad_text"
    raise BadRecord(code, f"document {index} is {kind(item)} (expected a string or an object)")


def hit_in(item: dict[str, Json], fields: Names) -> Layout | None:
    """The layout of a document that is a hit of a search engine and has no text of its own under a known name."""
    if type(item.get("text")) is str or _NESTED in item or present(item, fields.text):
        return None
    return layout_of(item)


def full_text(item: Mapping[str, Json], fields: Names, nested_title: bool = True) -> str:
    """Title and text of a document object with a space between, as BEIR joins them. Raises BadRecord without a text.

    `nested_title`: a title may be in the object `doc`, too.
    """
    if fields.parts:
        return fields.parts.text(lambda name: _anywhere(item, (name,)))
    text = item.get("text") if fields.text[0] == "text" else None
    if type(text) is not str:
        text = document_text(item, fields)
    title = item.get("title") if fields.title is TITLE else lookup(item, fields.title[0])
    if title is None and nested_title and isinstance(inner := item.get(_NESTED), dict):
        title = lookup(inner, fields.title[0])
    return f"{title} {text}".strip() if title and type(title) is str else text


def score_of(item: Mapping[str, Json], fields: Names) -> float | None:
    """The first-stage score of a document object. Raises BadRecord if a mapped field is not a number."""
    return mapped_score(item, fields) if "score" in fields.mapped else first_stage_score(item, fields.score)


def document_text(item: Mapping[str, Json], fields: Names) -> str:
    """The text of a document object, under the first known name that has one, in it or in its `doc`."""
    nested = item.get(_NESTED)
    value = _anywhere(item, fields.text)
    if value is None and not isinstance(nested, dict):
        value = nested
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return text_of(value, "text")
    if value is not None:
        raise BadRecord("bad_text", f"the text is not a string (got {kind(value)})")
    if present(item, fields.text) or (_NESTED in item and (nested is None or present(nested, fields.text))):
        raise BadRecord("null_text", "the text is null (expected a string)")
    got = f"got {names(item)}; expected {quoted(fields.text)}"
    raise BadRecord("missing_text", f"there is no text ({got}). Fix: --text-field")


def _anywhere(item: Mapping[str, Json], wanted: Sequence[str]) -> Json:
    """The value under the first of the names that has one, in a document or in its `doc`."""
    value = first(item, wanted).value
    if value is None and isinstance(inner := item.get(_NESTED), dict):
        value = first(inner, wanted).value
    return value
