"""The data types that all packages share.

A `Request` is one query with its candidates, a `Ranking` a request with one logit per candidate, a `Rejection` a record
that could not be read or scored. Knows nothing of files, models or terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from rerank_cli.choices import ScoreKind

Json: TypeAlias = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""


class Shape(StrEnum):
    """The forms of a record in a file, see docs/formats.md."""

    RERANK = "rerank"
    SCORE = "score"
    PAIRS = "pairs"
    CANDIDATES = "candidates"
    BATCH = "batch"
    TRAIN = "train"
    HITS = "hits"

    @property
    def keeps_order(self) -> bool:
        """Whether candidates are answered in input order, without a cut to the top n."""
        return self in (Shape.SCORE, Shape.TRAIN)


@dataclass(frozen=True, slots=True)
class Place:
    """A point in the inputs at which reading can start.

    `file` is the number of the input, from 0. `rows` lines (rows of Parquet) and `offset` bytes of decompressed content
    come before it in that file; for Parquet only `rows` counts.
    """

    file: int = 0
    rows: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record starts: `line` is 1-based (a row number for Parquet).

    Reading from `place` yields the record again. A group of rows and the bad rows inside it share one place.
    """

    path: str
    line: int
    place: Place | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One passage to score.

    `text` is the model's input (title and text joined). `source` is the document as read, a string or an object. `id`
    is its id in its JSON type, `score` its first-stage score; both are optional.
    """

    text: str
    source: Json
    id: str | int | float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One query and its candidates, in input order.

    `shape` is the form of the record and of its answer: `score` and `train` are answered in input order, all others
    best first. `extra` holds unused fields, which are copied to the answer. `given` is the whole record for `train`,
    whose answer is built from it. Limits and options are None where the record sets none; `top_n` is at least 1.
    `raw_scores`: logits are written, or not. `truncation` False: a truncated pair is an error. `rank_fields` are the
    fields that texts were made of, if the record names them.
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
    raw_scores: bool | None = None
    truncation: bool | None = None
    rank_fields: tuple[str, ...] = ()

    def score_kind(self, default: ScoreKind) -> ScoreKind:
        """The score to write: what the record asks for, else the default."""
        if self.raw_scores is None:
            return default
        return ScoreKind.RAW if self.raw_scores else ScoreKind.SIGMOID


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that could not be read or scored: a stable `code` for programs, a `message` for people.

    `raw` is the beginning of the record as text.
    """

    position: Position
    code: str
    message: str
    id: str | int | float | None = None
    raw: str = ""

    def __str__(self) -> str:
        return f"{self.position}: {self.message}"


Record: TypeAlias = Request | Rejection
"""What a source yields: one per record, in input order."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A scored request. All sequences but `order` have one item per candidate, in input order.

    `logits` are float32 values. `order` holds candidate indices, best first (input order for `score` and `train`), cut
    to the top n. `tokens` counts the model's tokens over all pairs. `layers` are the logits of several layers, the
    deepest one last; its value equals the logit. `truncated` marks pairs that lost tokens. `passages` are the character
    ranges (start, end) of the text that scored best. `fused` are float32 values, logits mixed with first-stage scores;
    `order` follows them.
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
"""What a sink takes: one per record, in input order."""
