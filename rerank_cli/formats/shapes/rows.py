"""A row: one decoded object of a file and where it stood. All readers yield these, all shapes are made of these."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from rerank_cli.display import excerpt
from rerank_cli.records import Json, Position


@dataclass(frozen=True, slots=True)
class Row:
    """`value` is what was decoded, an object if the file is any good. `raw` is None where there is no line of text."""

    position: Position
    value: Json
    raw: bytes | None = None

    def excerpt(self) -> str:
        """The row as text for a person to recognise."""
        return excerpt(self.raw if self.raw is not None else plain_json(self.value))


def plain_json(value: Json) -> bytes:
    """JSON of anything a Parquet file can hold, for reading by people; never fails."""
    try:
        return orjson.dumps(value, default=unusual)
    except TypeError:
        return repr(value).encode("utf-8", "replace")


def unusual(value: object) -> Json:
    """For orjson: what JSON has no type for (bytes, decimals, durations of a Parquet file) becomes a string."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
