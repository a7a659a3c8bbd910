"""The documents of a record to candidates: text, id, title and first-stage score of each.

A list may mix strings and objects. The order is kept; a document without text rejects the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.fields import Names, an_id, first, first_stage_score, present, text_of
from rerank_cli.records import Candidate, Json

_NESTED = "doc"


def candidates_from(items: Json, fields: Names, where: str) -> tuple[Candidate, ...]:
    """One candidate per document. Raises BadRecord if `items` is no list or empty, or a document is bad."""
    if not isinstance(items, list):
        raise BadRecord("bad_documents", f"`{shown(where, 40)}` is not a list (got {kind(items)})")
    if not items:
        raise BadRecord("no_candidates", f"`{shown(where, 40)}` is empty (expected at least one document)")
    found = [Candidate(item, item) if type(item) is str else _other(item, i, fields) for i, item in enumerate(items)]
    ids = [candidate.id for candidate in found if candidate.id is not None]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise BadRecord("duplicate_id", f"two documents have the same id (got {shown(repr(twice))} more than once)")
    return tuple(found)


def _other(item: Json, index: int, fields: Names) -> Candidate:
    """The candidate of a document that is not a string."""
    try:
        if isinstance(item, dict):
            text = full_text(item, fields)
            name = first(item, fields.doc_id).value
            if name is None and isinstance(inner := item.get(_NESTED), dict):
                name = first(inner, fields.doc_id).value
            return Candidate(text, item, an_id(name, "id"), first_stage_score(item))
        if isinstance(item, bytes):
            text = text_of(item, "text")
            return Candidate(text, text)
    except BadRecord as error:
        raise BadRecord(error.code, f"document {index}: {error}") from None
    code = "null_text" if item is None else "bad_text"
    raise BadRecord(code, f"document {index} is {kind(item)} (expected a string or an object)")


def full_text(item: Mapping[str, Json], fields: Names) -> str:
    """Title and text of a document object with a space between, as BEIR joins them. Raises BadRecord without a text."""
    text = item.get("text") if fields.text[0] == "text" else None
    if type(text) is not str:
        text = document_text(item, fields)
    title = item.get("title")
    if title is None and isinstance(inner := item.get(_NESTED), dict):
        title = inner.get("title")
    return f"{title} {text}".strip() if title and type(title) is str else text


def document_text(item: Mapping[str, Json], fields: Names) -> str:
    """The text of a document object, under the first known name that has one, in it or in its `doc`."""
    nested = item.get(_NESTED)
    value = first(item, fields.text).value
    if value is None:
        value = first(nested, fields.text).value if isinstance(nested, dict) else nested
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
