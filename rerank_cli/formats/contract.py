"""The two ends of a run: a `Source` yields records, a `Sink` takes outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rerank_cli.records import Outcome, Place, Record, Shape
from rerank_cli.storage.files import Committed
from rerank_cli.storage.opening import Stamp

ArrowSchema: TypeAlias = Any
"""A pyarrow.Schema, which is not imported before a Parquet file is met."""


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
