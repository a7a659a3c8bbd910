"""The vocabulary every room shares: requests come in, rankings go out.

A `Request` is one query with its candidates, a `Ranking` is the same request with one logit a candidate, and a
`Rejection` stands where a record could not be read or scored. This module knows nothing of files, models or terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""


class Shape(StrEnum):
    """The forms a record can have in a file (see docs/formats.md)."""

    RERANK = "rerank"
    SCORE = "score"
    PAIRS = "pairs"
    CANDIDATES = "candidates"
    BATCH = "batch"
    TRAIN = "train"

    @property
    def keeps_order(self) -> bool:
        """Are its candidates answered in input order, all of them?"""
        return self in (Shape.SCORE, Shape.TRAIN)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the inputs reading may begin.

    `file` numbers the inputs from 0. Before the place lie `rows` lines (rows for Parquet) and `offset` bytes of that
    file's content, counted after decompression; Parquet is found by rows alone.
    """

    file: int = 0
    rows: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record starts: `line` is 1-based (a row number for Parquet).

    Reading from `place` on yields the record again. Several records in succession may have one place: a group of rows
    and the bad rows that were met inside it.
    """

    path: str
    line: int
    place: Place | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One passage to be scored.

    `text` is what the model reads (title and text already joined). `source` is the document as it was given, a string
    or an object. `id` is its own id in its own JSON type, `score` the first-stage score; both None where there is none.
    """

    text: str
    source: Json
    id: str | int | float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One query and its candidates, in input order.

    `shape` is what the record looked like and decides what its answer looks like: `score` and `train` answer in input
    order, all others best first. `extra` holds the fields we do not use, written out again; `given` is the whole record
    for `train`, whose answer is made of it. The limits are None where the record has none of its own; `top_n` is at
    least 1.
    """

    query: str
    candidates: tuple[Candidate, ...]
    position: Position
    id: str | int | float | None = None
    shape: Shape = Shape.RERANK
    top_n: int | None = None
    max_tokens_per_doc: int | None = None
    instruction: str | None = None
    return_documents: bool | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
    given: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that could not be read or scored: a stable `code`, and a `message` for a person.

    `raw` is the record as it was read, decoded excerpt and cut to a readable length.
    """

    position: Position
    code: str
    message: str
    id: str | int | float | None = None
    raw: str = ""

    def __str__(self) -> str:
        return f"{self.position}: {self.message}"


Record: TypeAlias = Request | Rejection
"""What a source yields, one a record, in input order."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A scored request.

    `logits` are float32 values, one a candidate, in input order. `order` holds candidate indices, best first (input
    order for `score` and `train`), already cut to the top n. `tokens` is the number of model tokens over all pairs.
    `layers`, one row a candidate, are the logits of several layers, the deepest, which is its logit, last. `truncated`
    tells candidates whose pair lost tokens, `passages` the characters (start, end) of the text that scored best.
    `fused`, float32 values in input order, are what the order follows where logits were mixed with first-stage scores.
    """

    request: Request
    logits: Sequence[float]
    order: Sequence[int]
    tokens: int
    layers: Sequence[Sequence[float]] | None = None
    truncated: Sequence[bool] | None = None
    passages: Sequence[tuple[int, int]] | None = None
    fused: Sequence[float] | None = None


Outcome: TypeAlias = Ranking | Rejection
"""What a sink takes, one a record, in input order."""
