"""The input and the output of a run: a `Source` yields records, a `Sink` takes outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rerank_cli.formats.extent import Extent
from rerank_cli.records import Outcome, Place, Record, Shape
from rerank_cli.storage.files import Committed
from rerank_cli.storage.opening import Stamp, WhenIdle

ArrowSchema: TypeAlias = Any
"""A pyarrow.Schema. pyarrow is imported only when a Parquet file is opened."""


class Source(Protocol):
    """Records in input order, to be iterated once.

    `shape` is None until a record shows it, `total_bytes` None for stdin, `columns` None unless the input is Parquet.
    `bytes_read` counts bytes on disk, compressed ones for compressed input. `stamps` has one entry per input, taken
    when the source was opened; None for an input that can be read only once.
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
        """Set the file in which `sync` stores what a later `go_to` needs. Call before the first record is read."""

    def go_to(self, start: Place, records: int, shape: Shape | None, kept: Committed | None) -> bool:
        """Start at `start`, after `records` records; False if that is impossible. Call before the first record is read.

        `kept` is what `sync` returned when those records were done.
        """

    def go_near(self, size: int) -> int:
        """Start at the last place that is known to be a chunk's first and has at most `size` bytes on disk before it.

        Returns the number of records before it: 0 at the beginning. Call before the first record is read.
        """

    def extent(self) -> Extent:
        """How far each place is in the inputs. Call after the first record was read. Raises InputError."""

    def when_idle(self, act: WhenIdle) -> None:
        """Call `act`, in the thread that iterates, whenever a stream has no new bytes for a moment.

        It is called again until it returns True or new bytes arrive.
        """

    def sync(self) -> Committed | None:
        """Make the stored state durable; None if there is none. May run while another thread reads records."""

    def close(self) -> None: ...


class Sink(Protocol):
    """Takes outcomes in input order. `abandon` is valid in any state; after `publish` it does nothing.

    `patience` is how many seconds of work should pass between commits: each commit of a Parquet part costs a file.
    """

    patience: float

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write one chunk; a stream is flushed."""

    def commit(self) -> Committed:
        """Make everything written so far durable, and return its extent."""

    def finish(self) -> Path | None:
        """Complete the output durably under its provisional name, and return that; None for a stream."""

    def publish(self, attributes: Mapping[str, str] | None = None) -> None:
        """Give the finished output its final name, atomically, and attributes; calls `finish` first if needed."""

    def abandon(self) -> None:
        """Close the files. Committed data stays beside the output, under a name ending in .partial."""
