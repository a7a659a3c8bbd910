"""What search engines, vector databases and frameworks return: where the hits are; text, id and score of each hit.

A hit has its fields in itself, or in an object inside, such as `_source`. A distance, of which less is better, is never
taken for a score. The sources of the shapes are named in tests/neighbours/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from rerank_cli.display import names, quoted
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.fields import (
    DOC_ID,
    FIRST_SCORE,
    TEXT,
    Names,
    an_id,
    as_score,
    first,
    lookup,
    mapped_score,
)
from rerank_cli.formats.shapes.texts import plain_text
from rerank_cli.records import Candidate, Json

HIT_TEXT = (*TEXT, "page_content", "pageContent", "chunk", "chunk_text")
_SEARCHES = "responses"  # a multi-search of Elasticsearch and OpenSearch
_QUERIES = ("queries", "query")
_ERRORS = ("error", "errors", "root.errors", "status.error")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a product has things: names or dotted paths, of which the first with a value is used.

    `hits`: the list of hits in a response; `*` is the only list of an object. `inside`: objects of a hit that have its
    fields. `id` and `score` of a hit; `id` comes before the known names. `marks`: keys that a hit outside of a response
    is recognised by. If `ranked`, scores that rise along the list are distances, by a setting of the product.
    """

    product: str
    hits: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    score: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    ranked: bool = False


_CERTAINTY = ("_additional.score", "_additional.certainty")
_ELASTIC = "Elasticsearch or OpenSearch"
_VESPA = Layout("Vespa", ("root.children",), ("fields",), ("id",), ("relevance",), ("fields", "relevance"))
_QDRANT = ("result.points", "result", "points")
_V4_SCORES = ("metadata.score", "metadata.certainty")
LAYOUTS = (
    Layout(_ELASTIC, ("hits.hits",), ("_source", "fields"), ("_id",), ("_score",), ("_index", "_id")),
    _VESPA,
    Layout("Solr", ("response.docs",), (), ("id",), ("score",)),
    Layout("Qdrant", _QDRANT, ("payload",), ("id",), ("score",), ("payload",), True),
    Layout("Weaviate", ("data.Get.*",), (), ("_additional.id",), _CERTAINTY, ("_additional",)),
    Layout("Weaviate", ("objects",), ("properties",), ("uuid",), _V4_SCORES, ("properties",)),
    Layout("Milvus", ("data",), ("entity",), ("id",), (), ("entity",)),
    Layout("Azure AI Search", ("value",), (), (), ("@search.score",), ("@search.score",)),
    Layout("LlamaIndex", ("source_nodes",), ("node",), ("node.id_",), ("score",), ("node",), True),
    Layout("LangChain", ("source_documents", "context"), (), ("id",), (), ("page_content",)),
    Layout("LangChain", (), ("kwargs",), ("kwargs.id",), (), ("lc", "kwargs")),
    Layout("LangChain", (), (), ("id",), (), ("pageContent",)),
    Layout("Pinecone", ("matches",), ("metadata",), ("id",), ("score",), ("score", "metadata"), True),
)  # fmt: skip
_LISTED = Layout("a list", score=FIRST_SCORE, ranked=True)


class Response(NamedTuple):
    """The hits of one query. `path` is where they are in the record, "" if the record is the list itself."""

    layout: Layout
    path: str
    hits: Sequence[Json]


def response_in(record: Json) -> Response | None:
    """The hits in a response, None if the record is none. Raises BadRecord for hits of several kinds."""
    if isinstance(record, list):
        layout = layout_of(record[0]) if record else None
        return Response(layout or _LISTED, "", record) if _are_objects(record) else None
    if not isinstance(record, dict):
        return None
    for layout in LAYOUTS:
        for path in layout.hits:
            path, hits = _list_at(record, path)
            if _are_objects(hits):
                return Response(layout, path, hits)
    # Vespa leaves the list out if nothing was found.
    if isinstance(root := record.get("root"), Mapping) and "children" not in root and "fields" in root:
        return Response(_VESPA, "", ())
    return None


def is_response(record: Json) -> bool:
    """Whether a record is the response to a search, or to several."""
    if isinstance(record, dict) and isinstance(record.get(_SEARCHES), list):
        return True
    try:
        return any(response_in(search) for search in searches_in(record))
    except BadRecord:
        return True


def product_of(record: Json) -> str:
    """The product that a response, or a hit, is of; "" if it is unknown."""
    try:
        found = [response_in(search) for search in searches_in(record)]
    except BadRecord:
        found = []
    layout = next((response.layout for response in found if response), None) or layout_of(record)
    return layout.product if layout and layout is not _LISTED else ""


def searches_in(record: Json) -> Iterator[Json]:
    """The responses in a record: one, or those of several searches, each with its query from a list beside them.

    Raises BadRecord if that list has another length.
    """
    key = _SEARCHES if isinstance(record, dict) and isinstance(record.get(_SEARCHES), list) else "result"
    searches = record.get(key) if isinstance(record, dict) else None
    if not isinstance(searches, list) or not (key == _SEARCHES or _are_searches(searches)):
        yield record
        return
    queries = next((record[name] for name in _QUERIES if isinstance(record.get(name), list)), None)
    if queries is not None and len(queries) != len(searches):
        got = f"got {len(queries)} for {len(searches)}"
        raise BadRecord("bad_queries", f"there is not one query for each search ({got})")
    for number, search in enumerate(searches):
        response = search if isinstance(search, dict) else {"result": search}
        yield response if queries is None else {**response, "query": queries[number]}


def error_in(record: Mapping[str, Json]) -> Json:
    """What a response without hits says of its error, None if it is none."""
    return next((found for path in _ERRORS if (found := lookup(record, path))), None)


def layout_of(hit: Json) -> Layout | None:
    """The layout of a hit outside of a response, by its keys."""
    if not isinstance(hit, dict):
        return None
    return next((layout for layout in LAYOUTS if layout.marks and all(mark in hit for mark in layout.marks)), None)


def hits_to_candidates(found: Response, fields: Names) -> tuple[Candidate, ...]:
    """One candidate per hit, in order. Raises BadRecord."""
    candidates = []
    for number, hit in enumerate(found.hits):
        try:
            candidates.append(hit_to_candidate(hit, found.layout, fields))
        except BadRecord as error:
            raise BadRecord(error.code, f"hit {number}: {error}") from None
    mapped = "score" in fields.mapped
    return tuple(candidates if mapped or not found.layout.ranked else without_distances(candidates))


def hit_to_candidate(hit: dict[str, Json], layout: Layout, fields: Names) -> Candidate:
    """Raises BadRecord for a hit without a text."""
    views, parts = _views(hit, layout), fields.parts
    text = parts.text(lambda name: _first_in(views, (name,))) if parts else _text(views, fields, layout)
    name = _first_in(views, fields.doc_id if "doc_id" in fields.mapped else layout.id)
    if name is None and "doc_id" not in fields.mapped:
        found = [first(view, DOC_ID).value for view in views]
        name = next((value for value in found if isinstance(value, str | int)), None)
    if "score" in fields.mapped:
        score = next((s for view in views if (s := mapped_score(view, fields)) is not None), None)
    else:
        score = next((s for path in layout.score if (s := as_score(lookup(hit, path))) is not None), None)
    return Candidate(text, hit, an_id(name, "id"), score)


def without_distances(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The candidates, listed best first; scores that rise along the list are distances and are left out."""
    scores = [candidate.score for candidate in candidates if candidate.score is not None]
    if len(scores) > 1 and scores[0] < scores[-1] and all(left <= right for left, right in pairwise(scores)):
        return [replace(candidate, score=None) for candidate in candidates]
    return candidates


def text_in(hit: Json) -> str | None:
    """The text of a hit outside of a response, after its title; None if it is no hit, or has no text."""
    layout = layout_of(hit)
    try:
        return _text(_views(hit, layout), Names(), layout) if layout else None
    except BadRecord:
        return None


def unwrapped(hit: dict[str, Json]) -> dict[str, Json]:
    """The fields of a hit beside those of the object inside that has its text; the hit if it has none."""
    layout = layout_of(hit)
    for name in layout.inside if layout else ():
        if isinstance(inner := hit.get(name), dict):
            return {key: value for key, value in hit.items() if key != name} | inner
    return hit


def _views(hit: dict[str, Json], layout: Layout) -> list[dict[str, Json]]:
    return [hit, *(inner for name in layout.inside if isinstance(inner := hit.get(name), dict))]


def _first_in(views: Sequence[Mapping[str, Json]], wanted: Sequence[str]) -> Json:
    for view in views:
        if (found := first(view, wanted).value) is not None:
            return found
    return None


def _text(views: Sequence[dict[str, Json]], fields: Names, layout: Layout) -> str:
    """The text under a known or mapped name, after the title of the same object."""
    wanted = fields.text if "text" in fields.mapped else HIT_TEXT
    for view in views:
        name, value = first(view, wanted)
        if name is not None:
            text = plain_text(value, name) or ""
            title = first(view, fields.title).value if "title" not in fields.mapped else _first_in(views, fields.title)
            title = plain_text(title, fields.title[0]) if isinstance(title, str | list) else None
            return f"{title} {text}".strip() if title else text
    got = "; ".join(names(view) for view in views)
    fix = "Fix: --text-field FIELD"
    raise BadRecord("missing_text", f"there is no text in the hit of {layout.product} (got {got}). {fix}")


def _list_at(record: dict[str, Json], path: str) -> tuple[str, Json]:
    """The value at a path and the path, in which `*` is replaced by the name of the only list of its object."""
    if not path.endswith(".*"):
        return path, lookup(record, path)
    parent = lookup(record, path.removesuffix(".*"))
    lists = [key for key, value in parent.items() if isinstance(value, list)] if isinstance(parent, Mapping) else []
    if len(lists) > 1:
        raise BadRecord("bad_documents", f"the response has several lists of hits (got {quoted(lists)}, expected one)")
    return (path.replace("*", lists[0]), parent[lists[0]]) if lists else (path, None)


def _are_objects(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _are_searches(value: list[Json]) -> bool:
    """Whether each item is the list of hits of a search of its own, as in a batch of Qdrant."""
    return bool(value) and all(type(item) is list or (type(item) is dict and "points" in item) for item in value)
