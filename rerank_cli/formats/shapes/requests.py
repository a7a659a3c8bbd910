"""An object to a request: the shapes `rerank`, `candidates`, `score`, `batch` and `train`.

Fields that no part of a request is made of are kept in `extra`.
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
    text_of,
    without,
)
from rerank_cli.records import Json, Position, Request, Shape

_OPTIONS = ("model", "top_n", "max_tokens_per_doc", "return_documents", *INSTRUCTION)


def request_from(value: Json, shape: Shape, fields: Names, position: Position) -> Request:
    """The request in a record of the given shape, except `pairs`. Raises BadRecord."""
    record = an_object(value)
    if shape is Shape.BATCH:
        return _batch(record, fields, position)
    if shape is Shape.SCORE:
        query, documents = _query_and_texts(record)
        used: tuple[str, ...] = ("text_2",)
    else:
        query = find_query(record, fields)
        documents, used = (_train_lists(record), TRAIN_LISTS) if shape is Shape.TRAIN else _documents(record, fields)
    candidates = candidates_from(documents, fields, " and ".join(used))
    name, instruction = first(record, fields.id), first(record, INSTRUCTION)
    scores = TRAIN_SCORES if shape is Shape.TRAIN else ()
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
        extra=without(record, (*_OPTIONS, query.name, name.name, *used, *scores)),
        given=record if shape is Shape.TRAIN else None,
    )


def an_object(value: Json) -> dict[str, Json]:
    """The value if it is an object. Raises BadRecord."""
    if isinstance(value, dict):
        return value
    raise BadRecord("not_an_object", f"the record is {kind(value)} (expected an object)")


def find_query(record: dict[str, Json], fields: Names) -> Found:
    """The query's text and its field name. Raises BadRecord if it is missing, empty or not a string."""
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


def _documents(record: dict[str, Json], fields: Names) -> tuple[Json, tuple[str, ...]]:
    """The list of documents and the names it is found under. Raises BadRecord if there is none."""
    found = first(record, fields.documents)
    if found.name is not None:
        return found.value, (found.name,)
    if "documents" not in fields.mapped:
        for both in SPLIT_DOCUMENTS:
            if all(isinstance(record.get(name), list) for name in both):
                return [item for name in both for item in record[name]], both
    got = f"got {names(record)}; expected {quoted(fields.documents)}"
    raise BadRecord("no_candidates", f"there are no documents ({got}). Fix: --documents-field")


def _query_and_texts(record: dict[str, Json]) -> tuple[Found, Json]:
    """`text_1` is the query; `text_2`, a string or a list of strings, the documents. Raises BadRecord."""
    if "text_1" not in record:
        raise BadRecord("missing_query", f"there is no `text_1` (got {names(record)})")
    texts = record.get("text_2")
    if texts is None:
        raise BadRecord("no_candidates", f"there is no `text_2` (got {names(record)})")
    return find_query(record, Names(query=("text_1",))), [texts] if isinstance(texts, str) else texts


def _batch(envelope: dict[str, Json], fields: Names, position: Position) -> Request:
    """`custom_id` is the id, `body` a request. A body of the shape `score` keeps it, and is answered in that form."""
    body = envelope.get("body")
    if not isinstance(body, dict):
        raise BadRecord("bad_batch", f"`body` is not an object (got {kind(body)}; the record has {names(envelope)})")
    is_score = "text_1" in body
    inner = request_from(body, Shape.SCORE if is_score else Shape.RERANK, fields, position)
    name = an_id(envelope.get("custom_id"), "custom_id")
    return replace(
        inner,
        id=inner.id if name is None else name,
        shape=Shape.SCORE if is_score else Shape.BATCH,
        extra=without(envelope, ("custom_id", "method", "url", "body")) | dict(inner.extra),
    )


def _limit(record: dict[str, Json], name: str, zero_is_all: bool = False) -> int | None:
    value = record.get(name)
    if value is None or (zero_is_all and value == 0 and type(value) is int):
        return None
    if type(value) is not int or value < 1:
        got = str(value) if type(value) is int else kind(value)
        raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {got}, expected a whole number from 1)")
    return value


def optional(value: Json, expected: type, name: str) -> Json:
    """The value, which may be None. Raises BadRecord if it has another type."""
    if value is None or type(value) is expected:
        return value
    wanted = "a string" if expected is str else "true or false"
    raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {kind(value)}, expected {wanted})")


def _train_lists(record: dict[str, Json]) -> list[Json]:
    """The documents of both lists, either of which may be empty. Raises BadRecord if one is not a list."""
    for name in TRAIN_LISTS:
        if name not in record:
            raise BadRecord("no_candidates", f"there is no `{name}` (got {names(record)}; expected `pos` and `neg`)")
        if not isinstance(record[name], list):
            raise BadRecord("bad_documents", f"`{name}` is not a list (got {kind(record[name])})")
    return [item for name in TRAIN_LISTS for item in record[name]]
