"""A row: one decoded value of an input file and its position. All readers yield rows."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from rerank_cli.display import excerpt
from rerank_cli.records import Json, Position


@dataclass(frozen=True, slots=True)
class Row:
    """`value` is the decoded value, an object unless the row is bad. `raw` is the line of text, None for Parquet."""

    position: Position
    value: Json
    raw: bytes | None = None

    def excerpt(self) -> str:
        """The row as short text, for messages. Never fails."""
        if self.raw is not None:
            return excerpt(self.raw)
        try:
            return excerpt(orjson.dumps(self.value, default=unusual))
        except TypeError:
            return excerpt(repr(self.value).encode("utf-8", "replace"))


def unusual(value: object) -> Json:
    """Default function for orjson: types that JSON lacks (bytes, decimals, durations of Parquet) become strings."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
