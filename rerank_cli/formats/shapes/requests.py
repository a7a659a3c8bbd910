"""From an object to a request: the shapes `rerank`, `candidates`, `score`, `batch` and `train`.

Knows nothing of files. Fields that no part of a request is made of are carried in `extra`.
"""

from __future__ import annotations

from dataclasses import replace

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.documents import candidates_from
from rerank_cli.formats.shapes.fields import (
    INSTRUCTION,
    SPLIT_DOCUMENTS,
    TRAIN_LISTS,
    TRAIN_SCORES,
    Found,
    Names,
    an_id,
    first,
    lookup,
    text_of,
    without,
)
from rerank_cli.records import Candidate, Json, Position, Request, Shape

_OPTIONS = ("model", "top_n", "max_tokens_per_doc", "return_documents", *INSTRUCTION)
_ENVELOPE = ("method", "url", "body")


def request_from(value: Json, shape: Shape, fields: Names, position: Position) -> Request:
    """The request in a record of the given shape, `pairs` excepted. Raises BadRecord."""
    record = an_object(value)
    if shape is Shape.BATCH:
        return _batch(record, fields, position)
    if shape is Shape.SCORE:
        return _score(record, fields, position)
    query = find_query(record, fields)
    if shape is Shape.TRAIN:
        candidates = candidates_from(_train_lists(record), fields, " and ".join(TRAIN_LISTS))
        found = _request(record, query, candidates, shape, fields, position, (*TRAIN_LISTS, *TRAIN_SCORES))
        return replace(found, given=record)
    documents, used = _find_documents(record, fields)
    candidates = candidates_from(documents, fields, " and ".join(used))
    return _request(record, query, candidates, shape, fields, position, used)


def an_object(value: Json) -> dict[str, Json]:
    """The value if it is an object. Raises BadRecord."""
    if isinstance(value, dict):
        return value
    raise BadRecord("not_an_object", f"the record is {kind(value)} (expected an object)")


def find_query(record: dict[str, Json], fields: Names) -> Found:
    """The query's text and its name. Raises BadRecord if it is missing, empty or no string."""
    found = first(record, fields.query)
    if isinstance(found.value, dict) and (inner := first(record, [f"{found.name}.text", f"{found.name}.query"])).name:
        found = inner
    if found.name is None:
        got = f"got {names(record)}; expected {quoted(fields.query)}"
        raise BadRecord("missing_query", f"there is no query ({got}). Fix: --query-field")
    name, value = found
    if isinstance(value, bytes):
        value = text_of(value, "query")
    if not isinstance(value, str):
        raise BadRecord("bad_query", f"`{shown(str(name), 40)}` is not a string (got {kind(value)})")
    if not value or value.isspace():
        raise BadRecord("empty_query", f"`{shown(str(name), 40)}` is empty")
    return Found(name, value)


def _find_documents(record: dict[str, Json], fields: Names) -> tuple[Json, tuple[str, ...]]:
    """The list of documents and the names it was found under."""
    found = first(record, fields.documents)
    if found.name is not None:
        return found.value, (found.name,)
    if "documents" not in fields.mapped:
        for both in SPLIT_DOCUMENTS:
            lists = [record.get(name) for name in both]
            if all(isinstance(part, list) for part in lists):
                return [item for part in lists for item in part], both  # type: ignore[union-attr]
    got = f"got {names(record)}; expected {quoted(fields.documents)}"
    raise BadRecord("no_candidates", f"there are no documents ({got}). Fix: --documents-field")


def _request(
    record: dict[str, Json],
    query: Found,
    candidates: tuple[Candidate, ...],
    shape: Shape,
    fields: Names,
    position: Position,
    used: tuple[str, ...],
) -> Request:
    name = first(record, fields.id)
    instruction = first(record, INSTRUCTION)
    return Request(
        query=query.value,
        candidates=candidates,
        position=position,
        id=an_id(name.value, "id"),
        shape=shape,
        top_n=_limit(record, "top_n", zero_is_all=True),
        max_tokens_per_doc=_limit(record, "max_tokens_per_doc"),
        instruction=optional(instruction.value, str, instruction.name or ""),
        return_documents=optional(record.get("return_documents"), bool, "return_documents"),
        extra=without(record, (*_OPTIONS, query.name, name.name, *used)),
    )


def _score(record: dict[str, Json], fields: Names, position: Position) -> Request:
    """`text_1` is the query; `text_2`, a string or a list of them, the documents."""
    if "text_1" not in record:
        raise BadRecord("missing_query", f"there is no `text_1` (got {names(record)})")
    texts = record.get("text_2")
    if texts is None:
        raise BadRecord("no_candidates", f"there is no `text_2` (got {names(record)})")
    query = find_query(record, Names(query=("text_1",)))
    candidates = candidates_from([texts] if isinstance(texts, str) else texts, fields, "text_2")
    return _request(record, query, candidates, Shape.SCORE, fields, position, ("text_2",))


def _batch(envelope: dict[str, Json], fields: Names, position: Position) -> Request:
    """`custom_id` is the id, `body` a request. One of the score kind keeps that shape, so that it is answered so."""
    body = envelope.get("body")
    if not isinstance(body, dict):
        raise BadRecord("bad_batch", f"`body` is not an object (got {kind(body)}; the record has {names(envelope)})")
    shape = Shape.SCORE if "text_1" in body else Shape.BATCH
    inner = request_from(body, shape, fields, position) if shape is Shape.SCORE else _body(body, fields, position)
    name = an_id(lookup(envelope, "custom_id"), "custom_id")
    extra = without(envelope, (*_ENVELOPE, "custom_id")) | dict(inner.extra)
    return Request(
        inner.query,
        inner.candidates,
        position,
        inner.id if name is None else name,
        shape,
        inner.top_n,
        inner.max_tokens_per_doc,
        inner.instruction,
        inner.return_documents,
        extra,
    )


def _body(body: dict[str, Json], fields: Names, position: Position) -> Request:
    return request_from(body, Shape.RERANK, fields, position)


def _limit(record: dict[str, Json], name: str, zero_is_all: bool = False) -> int | None:
    value = record.get(name)
    if value is None or (zero_is_all and value == 0 and type(value) is int):
        return None
    if type(value) is not int or value < 1:
        got = str(value) if type(value) is int else kind(value)
        raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {got}, expected a whole number from 1)")
    return value


def optional(value: Json, expected: type, name: str) -> Json:
    """A value that may be missing. Raises BadRecord if it is of another type."""
    if value is None or type(value) is expected:
        return value
    wanted = "a string" if expected is str else "true or false"
    raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {kind(value)}, expected {wanted})")


def _train_lists(record: dict[str, Json]) -> list[Json]:
    """The documents of both lists, either of which may be empty. Raises BadRecord if one is no list."""
    both = []
    for name in TRAIN_LISTS:
        if name not in record:
            raise BadRecord("no_candidates", f"there is no `{name}` (got {names(record)}; expected `pos` and `neg`)")
        documents = record[name]
        if not isinstance(documents, list):
            raise BadRecord("bad_documents", f"`{name}` is not a list (got {kind(documents)})")
        both += documents
    return both
