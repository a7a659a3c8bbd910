"""The role of each column of an input with columns, stored in the schema that a source passes to a sink.

The role is field metadata: `id`, `query`, `documents`, `carried` or `used`. The output removes it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rerank_cli.display import names
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.shapes.detection import detect
from rerank_cli.formats.shapes.fields import PAIR_DOC_ID, PAIR_QUERY_ID, Names, first, present, without
from rerank_cli.formats.shapes.pairs import pair_from, pair_names
from rerank_cli.formats.shapes.request_options import BY_VALUE
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.records import Json, Position, Shape

_ROLE = b"rerank.role"
_SHAPE = b"rerank.shape"
_TSV = b"rerank.tsv"


def annotated(schema: ArrowSchema, shape: Shape | None, fields: Names, name: str) -> ArrowSchema:
    """The schema with roles and shape; None means the shape that its columns show.

    Raises InputError if the columns show no shape, or if records of these columns could never be used.
    """
    import pyarrow as pa

    row = {field.name: _example(field.type) for field in schema}
    shape = shape or detect(row, fields)
    if shape is None:
        got = f"got {names(schema.names)}; expected a query with its documents, or with a text"
        fix = "Fix: --query-field with --documents-field or --text-field"
        if present(row, PAIR_QUERY_ID) and present(row, PAIR_DOC_ID):
            fix = "Fix: --run instead of INPUT, for a run of ids"
        raise InputError(f"{name}: no shape fits its columns ({got}). {fix}")
    if shape is Shape.HITS:
        raise InputError(f"{name}: a response of a search engine is read from JSON. Fix: one row per hit, with --query")
    if len(row) < len(schema):
        twice = names(name for name in row if schema.names.count(name) > 1)
        raise InputError(f"{name}: several columns have one name (got {twice} more than once). Fix: rename them")
    try:
        roles = _roles(row, shape, fields)
    except BadRecord as error:
        columns = names(f"{field.name} {field.type}" for field in schema)
        fix = '. Fix: lists of strings, in CSV as JSON: ["a", "b"]' if error.code == "bad_documents" else ""
        raise InputError(f"{name}: {error}. Its columns: {columns}{fix}") from None
    noted = [field.with_metadata({_ROLE: roles.get(field.name, "used")}) for field in schema]
    # Metadata of pandas describes an index, which an output does not have.
    kept = {key: value for key, value in (schema.metadata or {}).items() if key != b"pandas"}
    return pa.schema(noted, metadata={**kept, _SHAPE: str(shape)})


def annotated_tsv(names: Sequence[str], fields: Names, name: str) -> ArrowSchema | None:
    """The columns of tab-separated pairs with roles, None if they show no pairs. Parquet output does not use them."""
    import pyarrow as pa

    with suppress(InputError):
        schema = annotated(pa.schema([(column, pa.string()) for column in names]), None, fields, name)
        if shape_of(schema) is Shape.PAIRS:
            return schema.with_metadata({**schema.metadata, _TSV: b""})
    return None


def typed(schema: ArrowSchema | None) -> ArrowSchema | None:
    """The columns whose types Parquet output has too: None for those of TSV."""
    return None if schema is None or _TSV in schema.metadata else schema


def _roles(row: dict[str, Json], shape: Shape, fields: Names) -> dict[str, str]:
    """The role of each column, for a row of example values. Raises BadRecord."""
    if shape is Shape.PAIRS:
        known = pair_names(row, fields)
        pair_from(row, known)
        roles = {column: "query" if column in known.query_columns else "carried" for column in row}
        return roles | {column: "id" for column in known.names.id[:1] if column in row}
    # An example value of an option would ask for something.
    request = request_from(without(row, BY_VALUE), shape, fields, Position("", 0))
    roles = dict.fromkeys(request.extra, "carried")
    for role, where in (("id", fields.id), ("documents", fields.documents)):
        name = first(row, where).name
        if name in row and name not in roles:
            roles[name] = role
    return roles


def shape_of(schema: ArrowSchema) -> Shape:
    """The shape stored in an annotated schema."""
    return Shape(schema.metadata[_SHAPE].decode())


def with_role(schema: ArrowSchema, *roles: str) -> list[ArrowSchema]:
    """The fields that have one of the roles: nullable, without metadata, dictionaries replaced by their value type."""
    wanted = [field for field in schema if field.metadata[_ROLE].decode() in roles]
    return [field.remove_metadata().with_type(_plain_type(field.type)).with_nullable(True) for field in wanted]


def _plain_type(kind: ArrowSchema) -> ArrowSchema:
    """The value type of a dictionary, whose dictionaries would have to agree in all parts; no view types."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def provenance(schema: ArrowSchema | None) -> dict[bytes, bytes]:
    """The input's own schema metadata, to be written with its columns."""
    return {} if schema is None else {key: value for key, value in schema.metadata.items() if key != _SHAPE}


def _example(kind: ArrowSchema) -> Any:
    """A value of a column's type, to find the shape and check types without reading a row. Bytes may be UTF-8 text."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _example(kind.value_type)
    if types.is_struct(kind):
        return {field.name: _example(field.type) for field in kind}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_example(kind.value_type)]
    texts = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), pa.binary_view())
    if kind in texts:
        return "text"
    return 1 if types.is_integer(kind) else 1.0 if types.is_floating(kind) else True
