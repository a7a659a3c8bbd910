"""What a caller asks for, and the two ends it gets: a `Source` of records and a `Sink` for outcomes.

Plain data and Protocols. Nothing here opens a file.
"""

from __future__ import annotations

from dataclasses import dataclass

from rerank_cli.choices import OutputFormat, RunValues, ScoreKind
from rerank_cli.records import Shape


@dataclass(frozen=True, slots=True)
class ById:
    """Where the texts are that a run names by ids: in files, the corpus in a folder of them too.

    The first `depth` candidates of a query are taken. The index of the corpus is kept beside it, or in `index_folder`.
    """

    queries: str
    corpus: str
    depth: int | None = None
    values: RunValues = RunValues.AUTO
    index_folder: str | None = None


@dataclass(frozen=True, slots=True)
class InputOptions:
    """Which files to read, and how. Several are read one after the other and keep one shape.

    A field is a key or a dotted path of keys; None takes the first that fits from the table of known names. With
    `sort`, rows of pairs may stand in any order. With `by_id`, the paths are runs, and fields those of its files.
    """

    paths: tuple[str, ...]
    shape: Shape | None = None
    query_field: str | None = None
    documents_field: str | None = None
    text_field: str | None = None
    id_field: str | None = None
    doc_id_field: str | None = None
    sort: bool = False
    by_id: ById | None = None


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How a ranking becomes rows.

    `layers` are the cutoff layers of which each has a score of its own, `truncated` marks every result that lost
    tokens, `passages` says which part of a long document was the best, `fused` writes the score that the order follows.
    """

    model: str
    scores: ScoreKind = ScoreKind.SIGMOID
    documents: bool = True
    layers: tuple[int, ...] = ()
    truncated: bool = False
    passages: bool = False
    fused: bool = False


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where to write, and what. With `keep_errors` a rejection is written in the place of its answer."""

    path: str
    format: OutputFormat
    answers: AnswerOptions
    overwrite: bool = False
    keep_errors: bool = False
