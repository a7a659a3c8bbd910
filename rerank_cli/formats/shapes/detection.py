"""Which shape a record has, told by the names of its fields alone: values may still be bad."""

from __future__ import annotations

from collections.abc import Mapping

from rerank_cli.formats.shapes.fields import SPLIT_DOCUMENTS, TRAIN_LISTS, Names, lookup, present
from rerank_cli.records import Json, Shape


def detect(value: Json, fields: Names) -> Shape | None:
    """The shape a record shows, None if it fits none of them."""
    if not isinstance(value, Mapping):
        return None
    if "documents" not in fields.mapped and "text" not in fields.mapped:
        if isinstance(value.get("body"), Mapping) and ("custom_id" in value or "url" in value):
            return Shape.BATCH
        if "text_1" in value and "text_2" in value:
            return Shape.SCORE
    if not present(value, fields.query):
        return None
    if _has_documents(value, fields):
        if not present(value, fields.documents) and all(name in value for name in TRAIN_LISTS):
            return Shape.TRAIN
        return Shape.CANDIDATES if isinstance(lookup(value, "query"), Mapping) else Shape.RERANK
    return Shape.PAIRS if present(value, (*fields.text, "doc")) else None


def other_shape(value: Json, shape: Shape, fields: Names) -> Shape | None:
    """The shape a record has if it is plainly not the given one, else None."""
    found = detect(value, fields)
    # Only the query tells these two apart: where it is null the record may be either.
    either = {found, shape} == {Shape.RERANK, Shape.CANDIDATES} and lookup(value, "query") is None
    return None if found is shape or either else found


def _has_documents(value: Mapping[str, Json], fields: Names) -> bool:
    if present(value, fields.documents):
        return True
    return "documents" not in fields.mapped and any(all(k in value for k in both) for both in SPLIT_DOCUMENTS)
