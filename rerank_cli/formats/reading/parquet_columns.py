"""What each column of a Parquet input is to us, noted in the schema that a source hands on to a sink.

The note is field metadata: `id`, `query`, `documents` or `carried`. Output strips it again.
"""

from __future__ import annotations

from typing import Any

from rerank_cli.display import names
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.shapes.fields import Names, first
from rerank_cli.formats.shapes.pairs import pair_from, pair_names
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.records import Json, Position, Shape

_ROLE = b"rerank.role"
_SHAPE = b"rerank.shape"


def annotated(schema: ArrowSchema, shape: Shape, fields: Names, name: str) -> ArrowSchema:
    """The schema with roles. Raises InputError if records of these columns could never be used."""
    import pyarrow as pa

    row = {field.name: example(field.type) for field in schema}
    if len(row) < len(schema):
        twice = names(name for name in row if schema.names.count(name) > 1)
        raise InputError(f"{name}: several columns have one name (got {twice} more than once). Fix: rename them")
    try:
        roles = _pair_roles(row, fields) if shape is Shape.PAIRS else _roles(row, shape, fields)
    except BadRecord as error:
        columns = names(f"{field.name} {field.type}" for field in schema)
        raise InputError(f"{name}: {error}. Its columns: {columns}") from None
    noted = [field.with_metadata({_ROLE: roles.get(field.name, "used")}) for field in schema]
    return pa.schema(noted, metadata={**_kept(schema.metadata), _SHAPE: str(shape)})


def _roles(row: dict[str, Json], shape: Shape, fields: Names) -> dict[str, str]:
    request = request_from(row, shape, fields, Position("", 0))
    roles = dict.fromkeys(request.extra, "carried")
    for role, where in (("id", fields.id), ("documents", fields.documents)):
        name = first(row, where).name
        if name in row and name not in roles:
            roles[name] = role
    return roles


def _pair_roles(row: dict[str, Json], fields: Names) -> dict[str, str]:
    known = pair_names(row, fields)
    pair_from(row, known)
    roles = {column: "query" if column in known.query_columns else "carried" for column in row}
    if known.names.id and known.names.id[0] in row:
        roles[known.names.id[0]] = "id"
    return roles


def _kept(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes]:
    """Notes of pandas describe an index that an output does not have."""
    return {key: value for key, value in (metadata or {}).items() if key != b"pandas"}


def shape_of(schema: ArrowSchema) -> Shape:
    """The shape that was found."""
    return Shape(schema.metadata[_SHAPE].decode())


def with_role(schema: ArrowSchema, *roles: str) -> list[ArrowSchema]:
    """The fields that have one of the roles, without notes, dictionaries as their values."""
    wanted = [field for field in schema if field.metadata[_ROLE].decode() in roles]
    return [field.remove_metadata().with_type(plain_type(field.type)).with_nullable(True) for field in wanted]


def plain_type(kind: ArrowSchema) -> ArrowSchema:
    """A dictionary's value type: the dictionaries of parts to be joined would have to agree."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if kind == pa.string_view():
        return pa.string()
    return pa.binary() if kind == pa.binary_view() else kind


def provenance(schema: ArrowSchema | None) -> dict[bytes, bytes]:
    """The input's own notes, to go with its columns."""
    return {} if schema is None else {key: value for key, value in schema.metadata.items() if key != _SHAPE}


def example(kind: ArrowSchema) -> Any:
    """A value of a column's type, for telling shapes and checking types without reading a row."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return example(kind.value_type)
    if types.is_struct(kind):
        return {field.name: example(field.type) for field in kind}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [example(kind.value_type)]
    if is_text(kind):
        return "text"
    return 1 if types.is_integer(kind) else 1.0 if types.is_floating(kind) else True


def is_text(kind: ArrowSchema) -> bool:
    """Strings, and bytes that may be UTF-8."""
    import pyarrow as pa

    types = pa.types
    checks = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    views = [getattr(types, name) for name in ("is_string_view", "is_binary_view") if hasattr(types, name)]
    return any(check(kind) for check in (*checks, *views))
