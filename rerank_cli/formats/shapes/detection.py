"""Which shape a record has, by the names of its fields alone: the values may still be bad."""

from __future__ import annotations

from collections.abc import Mapping

from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.fields import INPUT, SPLIT_DOCUMENTS, TRAIN_LISTS, Names, lookup, present
from rerank_cli.formats.shapes.hits import is_response, layout_of
from rerank_cli.records import Json, Shape


def detect(value: Json, fields: Names) -> Shape | None:
    """The shape of a record, None if it fits none."""
    own_documents = "documents" in fields.mapped
    if not isinstance(value, Mapping):
        return Shape.HITS if not own_documents and is_response(value) else None
    if not own_documents and "text" not in fields.mapped:
        if isinstance(value.get("body"), Mapping) and ("custom_id" in value or "url" in value):
            return Shape.BATCH
        if "text_1" in value and "text_2" in value:
            return Shape.SCORE
    if fields.asked is not None or present(value, fields.query):
        listed = present(value, fields.documents)
        if listed or (not own_documents and any(all(name in value for name in both) for both in SPLIT_DOCUMENTS)):
            if not listed and all(name in value for name in TRAIN_LISTS):
                return Shape.TRAIN
            return Shape.CANDIDATES if isinstance(lookup(value, "query"), Mapping) else Shape.RERANK
        if present(value, (*fields.text, "doc")):
            return Shape.PAIRS
        if not own_documents and isinstance(value.get(INPUT), list):
            return Shape.RERANK
        if layout_of(value):
            return Shape.PAIRS
    return Shape.HITS if not own_documents and is_response(value) else None


def wrong_shape(value: Json, shape: Shape, fields: Names) -> BadRecord | None:
    """The error for a record that clearly has another shape than the given one, else None."""
    found = detect(value, fields)
    # Only the query distinguishes these two: where it is null the record may be either.
    either = {found, shape} == {Shape.RERANK, Shape.CANDIDATES} and lookup(value, "query") is None
    if found in (None, shape) or either:
        return None
    return BadRecord("wrong_shape", f"the record has a different shape (got {found}, expected {shape}). Fix: --shape")


def whole_table(value: Json) -> str | None:
    """The `orient` with which pandas wrote a whole table as this one object, None if it is no such object."""
    if not isinstance(value, Mapping):
        return None
    if value.keys() == {"columns", "index", "data"}:
        return "split"
    if value.keys() == {"schema", "data"} and isinstance(value["schema"], Mapping):
        return "table"
    columns = [column.keys() for column in value.values() if isinstance(column, Mapping)]
    filled = len(columns) == len(value) > 1 and len(columns[0]) > 0
    numbered = filled and all(name.isdecimal() for name in columns[0])
    return "columns" if numbered and all(names == columns[0] for names in columns) else None
