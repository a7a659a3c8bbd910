"""An object to a request: the shapes `rerank`, `candidates`, `score`, `batch`, `train` and `hits`.

Fields that no part of a request is made of are kept in `extra`.
"""

from __future__ import annotations

from dataclasses import replace

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.documents import candidates_from, distinct
from rerank_cli.formats.shapes.fields import (
    INPUT,
    INSTRUCTION,
    QUERY,
    SPLIT_DOCUMENTS,
    TRAIN_LISTS,
    TRAIN_SCORES,
    Found,
    Names,
    an_id,
    first,
    lookup,
    without,
)
from rerank_cli.formats.shapes.hits import error_in, hits_to_candidates, response_in
from rerank_cli.formats.shapes.request_options import (
    RequestOptions,
    instruction_of,
    option_names,
    options_of,
    token_limit,
)
from rerank_cli.formats.shapes.texts import text_of
from rerank_cli.records import Candidate, Json, Position, Request, Shape

_TRAIN_OPTIONS = ("model", "top_n", "max_tokens_per_doc", "return_documents", *INSTRUCTION)
_SINGULAR = ("document", "candidate")


def request_from(value: Json, shape: Shape, fields: Names, position: Position) -> Request:
    """The request in a record of the given shape, except `pairs`. Raises BadRecord."""
    if shape is Shape.HITS:
        return _response(value, fields, position)
    record = an_object(value)
    if shape is Shape.BATCH:
        return _batch(record, fields, position)
    if shape is Shape.TRAIN:
        return _training(record, fields, position)
    if shape is Shape.SCORE:
        query, documents = _query_and_texts(record, fields)
        used: tuple[str, ...] = ("text_2",)
    else:
        query = find_query(record, fields)
        documents, used = _documents(record, fields)
    options, fields = _options(record, fields, in_order=shape is Shape.SCORE)
    candidates = candidates_from(documents, fields, " and ".join(used))
    return _request(record, shape, fields, position, query, candidates, options, used)


def _request(
    record: dict[str, Json],
    shape: Shape,
    fields: Names,
    position: Position,
    query: Found,
    candidates: tuple[Candidate, ...],
    options: RequestOptions,
    used: tuple[str, ...],
) -> Request:
    """The request of these parts, with the record's id and its other fields."""
    name = first(record, fields.id)
    named = option_names(record)
    return Request(
        query=query.value,
        candidates=candidates,
        position=position,
        id=an_id(name.value, "id"),
        shape=shape,
        top_n=options.top_n,
        max_tokens_per_doc=options.max_tokens_per_doc,
        instruction=options.instruction,
        return_documents=options.return_documents,
        extra=without(record, (*named, query.name, name.name, *used)),
        raw_scores=options.raw_scores,
        truncation=options.truncation,
        rank_fields=options.text.names if options.text else (),
    )


def _options(record: dict[str, Json], fields: Names, in_order: bool = False) -> tuple[RequestOptions, Names]:
    """The record's options, and the field names with its rank fields, which come before the caller's text fields."""
    options = options_of(record, in_order)
    if options.text is None:
        return options, fields
    return options, replace(fields, parts=options.text, text=options.text.names, mapped=fields.mapped | {"text"})


def _response(value: Json, fields: Names, position: Position) -> Request:
    """The response of a search engine, with its query; also a bare list of hits."""
    record = value if isinstance(value, dict) else {} if isinstance(value, list) else an_object(value)
    found = response_in(value)
    problem = record.get("error") if found and found.hits else error_in(record)
    if problem is not None:
        raise _response_error(problem)
    if found is None:
        got = f"got {names(record)}; expected the response of a search engine"
        raise BadRecord("no_candidates", f"there are no hits ({got}). Fix: --documents-field")
    query = find_query(record, fields)
    options, fields = _options(record, fields)
    candidates = distinct(hits_to_candidates(found, fields))
    return _request(record, Shape.HITS, fields, position, query, candidates, options, (found.path,))


def _training(record: dict[str, Json], fields: Names, position: Position) -> Request:
    """Training data, whose fields are columns and not options, but for the instruction and the limit of tokens."""
    query, documents = find_query(record, fields), _train_lists(record)
    candidates = candidates_from(documents, fields, " and ".join(TRAIN_LISTS))
    name = first(record, fields.id)
    return Request(
        query=query.value,
        candidates=candidates,
        position=position,
        id=an_id(name.value, "id"),
        shape=Shape.TRAIN,
        max_tokens_per_doc=token_limit(record),
        instruction=instruction_of(record),
        extra=without(record, (*_TRAIN_OPTIONS, query.name, name.name, *TRAIN_LISTS, *TRAIN_SCORES)),
        given=record,
    )


def an_object(value: Json) -> dict[str, Json]:
    """The value if it is an object. Raises BadRecord."""
    if isinstance(value, dict):
        return value
    raise BadRecord("not_an_object", f"the record is {kind(value)} (expected an object)")


def find_query(record: dict[str, Json], fields: Names) -> Found:
    """The query's text and its field name. Raises BadRecord if it is missing, null, empty or not a string."""
    if fields.asked is not None:
        if lookup(record, QUERY[0]) is not None:
            raise BadRecord("two_queries", "the record has a query, and --query gives one. Fix: remove --query")
        return Found(None, fields.asked)
    found = first(record, fields.query)
    where, inside = record, fields.query
    if isinstance(found.value, dict):
        where, inside = found.value, ("text", "query")
        text = first(where, inside)
        found = Found(f"{found.name}.{text.name}", text.value) if text.name else Found(None, None)
    if found.name is None:
        null = next((name for name in inside if name in where), None)
        got = f"`{shown(null, 40)}` is null (expected a string)" if null else f"there is no query (got {names(where)}"
        hint = "" if null else f"; expected {quoted(inside)}). Fix: --query-field, or --query TEXT for one response"
        raise BadRecord("missing_query", got + hint)
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
        if isinstance(record.get(INPUT), list):
            return record[INPUT], (INPUT,)
    null = next((name for name in fields.documents if name in record), None)
    if null:
        raise BadRecord("no_candidates", f"`{shown(null, 40)}` is null (expected a list)")
    single = next((name for name in _SINGULAR if record.get(name) is not None), None)
    if single:
        flag = "--documents-field" if isinstance(record[single], list) else "--text-field"
        expected = f"expected `documents`, a list; {flag} {single} reads it as it is"
        raise BadRecord("no_candidates", f"there are no documents, but a field `{single}` ({expected})")
    if (problem := error_in(record)) is not None:
        raise _response_error(problem)
    got = f"got {names(record)}; expected {quoted(fields.documents)}"
    raise BadRecord("no_candidates", f"there are no documents ({got}). Fix: --documents-field")


def _response_error(problem: Json) -> BadRecord:
    return BadRecord("response_error", f"the response is an error (got {shown(str(problem), 120)})")


def _query_and_texts(record: dict[str, Json], fields: Names) -> tuple[Found, Json]:
    """`text_1` is the query; `text_2`, a string or a list of strings, the documents. Raises BadRecord."""
    if fields.asked is not None:
        raise BadRecord("two_queries", "the record has a query in `text_1`, and --query gives one. Fix: remove --query")
    for name, code in (("text_1", "missing_query"), ("text_2", "no_candidates")):
        if record.get(name) is None:
            got = f"`{name}` is null" if name in record else f"there is no `{name}` (got {names(record)})"
            raise BadRecord(code, got)
    texts = record["text_2"]
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


def _train_lists(record: dict[str, Json]) -> list[Json]:
    """The documents of both lists, either of which may be empty. Raises BadRecord if one is not a list."""
    for name in TRAIN_LISTS:
        if name not in record:
            raise BadRecord("no_candidates", f"there is no `{name}` (got {names(record)}; expected `pos` and `neg`)")
        if not isinstance(record[name], list):
            raise BadRecord("bad_documents", f"`{name}` is not a list (got {kind(record[name])})")
    return [item for name in TRAIN_LISTS for item in record[name]]
