"""The records of one shard.

A shard has whole chunks of the run without `--shard`: those whose first record begins in its part of the bytes. So it
packs the same pairs into the same rows as that run, and the scores are the same to the last digit. To find its first
chunk, records before it are read, but not scored: from the beginning of a section on, where reading can start there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rerank_cli.display import shown
from rerank_cli.formats.extent import Extent
from rerank_cli.records import Place, Record
from rerank_cli.run.chunks import Sections, weight_of
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.fingerprint import Fingerprint, settings
from rerank_cli.run.recovery.receipt import receipt
from rerank_cli.run.recovery.shard_note import ShardNote, as_attribute, inputs_hash, note_of
from rerank_cli.run.shard import Shard
from rerank_cli.storage.opening import Stamp
from rerank_cli.storage.paths import final_path
from rerank_cli.storage.remote import is_remote


class Part:
    """Selects records in the order of the input.

    `before` counts the records of earlier shards; at first, those before the place where reading begins, which is
    `inside` the shard or before it, and where a chunk begins. `extent` and `chunk_pairs` are called once the first
    record was read.
    """

    def __init__(
        self,
        shard: Shard,
        extent: Callable[[], Extent],
        chunk_pairs: Callable[[], int],
        before: int = 0,
        *,
        inside: bool = False,
    ) -> None:
        self.before = before
        self._shard = shard
        self._extent = extent
        self._chunk_pairs = chunk_pairs
        self._inside = inside

    def of(self, records: Iterator[Record]) -> Iterator[Record]:
        """The records of this shard. Ends where the next shard begins."""
        sections = Sections()
        size = weight = 0
        extent: Extent | None = None
        begin, end = 0, 0
        for record in records:
            if extent is None:
                extent, size = self._extent(), self._chunk_pairs()
                begin, end = self._shard.share_of(extent.total)
            begins = sections.begins_at(record)
            if weight and (begins or weight + weight_of(record) > size):
                weight = 0
            if not weight:
                reached = extent.before(record.position.place or Place())
                if reached >= end and self._shard.index + 1 < self._shard.count:
                    return
                self._inside = self._inside or reached >= begin
            weight += weight_of(record)
            if weight >= size:
                weight = 0
            if self._inside:
                yield record
            else:
                self.before += 1

    def note(
        self,
        size: int,
        config: RunConfig,
        stats: RunStatistics,
        mark: Fingerprint,
        revisions: Sequence[str],
        stamps: Sequence[Stamp | None],
    ) -> dict[str, str]:
        """What `rerank merge` needs to know of the finished output of `size` bytes, as an attribute of it."""
        whole = config.unsharded
        note = ShardNote(
            self._shard.index,
            self._shard.count,
            self.before,
            stats.records,
            receipt(whole, revisions, stamps),
            mark | settings(whole) | {"shard": None},
            inputs_hash(stamps),
            config.errors and _full(config.errors),
            whole.errors,
            stats.counts(),
            round(stats.elapsed, 1),
        )
        return as_attribute(note, size)


def _full(path: str) -> str:
    return path if is_remote(path) else str(final_path(path))


def check_noted(config: RunConfig) -> None:
    """Say so if the published output of a shard could not keep its note."""
    if note_of(config.output.path) is None:
        what = "its file system has no extended attributes, or no room for another one"
        config.notify(f"{shown(config.output.path, 300)}: {what}; rerank merge needs --by-name")
