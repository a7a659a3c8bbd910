"""What a caller asks for, and the two ends it gets: a `Source` of records and a `Sink` for outcomes.

Plain data and Protocols. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rerank_cli.records import Outcome, Place, Record, Shape

ArrowSchema: TypeAlias = Any
"""A pyarrow.Schema, which is not imported before a Parquet file is met."""

STREAM = "-"
"""The path that stands for stdin or stdout."""


class RunValues(StrEnum):
    """What the third column of a run without others is; auto takes numbers from 1 upwards for ranks."""

    AUTO = "auto"
    SCORES = "scores"
    RANKS = "ranks"


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


class OutputFormat(StrEnum):
    """What one line (or row) of output is."""

    API = "api"
    PAIRS = "pairs"
    TREC = "trec"
    MSMARCO = "msmarco"
    BEIR = "beir"
    FLAGEMBEDDING = "flagembedding"
    OPENAI_BATCH = "openai-batch"

    @property
    def is_run(self) -> bool:
        """Nothing but ids and scores or ranks: no place for errors or marks."""
        return self in (OutputFormat.TREC, OutputFormat.MSMARCO) or self.is_one_object

    @property
    def is_one_object(self) -> bool:
        """One JSON object from the first byte to the last, not a line a query."""
        return self in (OutputFormat.BEIR, OutputFormat.FLAGEMBEDDING)


class ScoreKind(StrEnum):
    """Which number is written: the sigmoid of the logit, the logit, or the one and the other beside it."""

    SIGMOID = "sigmoid"
    RAW = "raw"
    BOTH = "both"


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


@dataclass(frozen=True, slots=True)
class Committed:
    """How much of an output is durable: bytes of a file or parts of a folder, and the hash of what they hold.

    Enough to open the same output again and go on behind that point. Streams have no hash.
    """

    length: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an input file is told by without reading it whole: size, time of change, hash of its first 64 KiB."""

    size: int
    changed_ns: int
    head: str


class Source(Protocol):
    """Records in input order, to be iterated once.

    `shape` is None until a record showed it, `total_bytes` None for stdin, `columns` None unless the input is Parquet.
    `bytes_read` counts bytes on disk, compressed ones for compressed input. `stamps` has one entry an input, as it was
    when the source was opened, None for one that can be read once only.
    """

    @property
    def shape(self) -> Shape | None: ...
    @property
    def description(self) -> str: ...
    @property
    def total_bytes(self) -> int | None: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def columns(self) -> ArrowSchema | None: ...
    @property
    def stamps(self) -> Sequence[Stamp | None]: ...
    def __iter__(self) -> Iterator[Record]: ...

    def keep_memory_in(self, path: Path) -> None:
        """Before the first record is read: where `sync` keeps what `go_to` needs to know of the records behind."""

    def go_to(self, start: Place, records: int, shape: Shape | None, kept: Committed | None) -> bool:
        """Before the first record is read: begin at `start`, behind so many records; False if that cannot be.

        `kept` is what `sync` said when those records were done.
        """

    def sync(self) -> Committed | None:
        """Make durable what there is to remember, if there is. May be called while another thread reads records."""

    def close(self) -> None: ...


class Sink(Protocol):
    """Takes outcomes in input order. `abandon` may follow anything, `publish` too, and then does nothing.

    `patience` is how many seconds of work a commit is worth waiting for: a commit of a Parquet part costs a file.
    """

    patience: float

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write one chunk; a stream is flushed."""

    def commit(self) -> Committed:
        """Make all that was written durable, and say how much that is by now."""

    def finish(self) -> Path | None:
        """Make the output whole and durable under its provisional name, which is returned; a stream has none."""

    def publish(self) -> None:
        """Give the finished output its name, at once or not at all; `finish` first if that was not done."""

    def abandon(self) -> None:
        """Let go of the files. What was committed stays beside the output, under a name ending in .partial."""
