"""From what a record calls its documents to candidates: text, id, title and first-stage score of each.

Strings and objects may stand side by side in one list. The order is kept; a document without text rejects the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.fields import FIRST_SCORE, Names, an_id, first, first_number, present, text_of
from rerank_cli.records import Candidate, Json

_NESTED = "doc"


def candidates_from(items: Json, fields: Names, where: str) -> tuple[Candidate, ...]:
    """One candidate a document. Raises BadRecord if it is no list, empty, or one of them cannot be used."""
    if not isinstance(items, list):
        raise BadRecord("bad_documents", f"`{shown(where, 40)}` is not a list (got {kind(items)})")
    if not items:
        raise BadRecord("no_candidates", f"`{shown(where, 40)}` is empty (expected at least one document)")
    found = [Candidate(item, item) if type(item) is str else _other(item, i, fields) for i, item in enumerate(items)]
    check_distinct(found)
    return tuple(found)


def check_distinct(candidates: Sequence[Candidate]) -> None:
    """Raise BadRecord if two candidates have the same id."""
    ids = [candidate.id for candidate in candidates if candidate.id is not None]
    if len(set(ids)) == len(ids):
        return
    twice = Counter(ids).most_common(1)[0][0]
    raise BadRecord("duplicate_id", f"two documents have the same id (got {shown(repr(twice))} more than once)")


def _other(item: Json, index: int, fields: Names) -> Candidate:
    try:
        if isinstance(item, dict):
            return _from_object(item, fields)
        if isinstance(item, bytes):
            text = text_of(item, "text")
            return Candidate(text, text)
    except BadRecord as error:
        raise BadRecord(error.code, f"document {index}: {error}") from None
    code = "null_text" if item is None else "bad_text"
    raise BadRecord(code, f"document {index} is {kind(item)} (expected a string or an object)")


def _from_object(item: dict[str, Json], fields: Names) -> Candidate:
    text = full_text(item, fields)
    name = first(item, fields.doc_id).value
    if name is None and isinstance(inner := item.get(_NESTED), dict):
        name = first(inner, fields.doc_id).value
    return Candidate(text, item, an_id(name, "id"), first_number(item, FIRST_SCORE))


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
    value = first(item, fields.text).value
    if value is None:
        nested = item.get(_NESTED)
        value = first(nested, fields.text).value if isinstance(nested, dict) else nested
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return text_of(value, "text")
    if value is not None:
        raise BadRecord("bad_text", f"the text is not a string (got {kind(value)})")
    raise _no_text(item, fields)


def _no_text(item: Mapping[str, Json], fields: Names) -> BadRecord:
    inner = item.get(_NESTED)
    if present(item, fields.text) or (_NESTED in item and (inner is None or present(inner, fields.text))):
        return BadRecord("null_text", "the text is null (expected a string)")
    got = f"got {names(item)}; expected {quoted(fields.text)}"
    return BadRecord("missing_text", f"there is no text ({got}). Fix: --text-field")
