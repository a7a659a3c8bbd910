"""Records to chunks: whole consecutive requests with about a given number of pairs.

Chunks are the unit of commits and work distribution. Their boundaries depend on the records, their places and the
chunk size only, not on timing or on where a run was resumed. The exception is a stream that pauses: its chunk is closed
early, so that a reader gets the answers, and the place is recorded (`Journal`), so that a resumed run closes it there
too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rerank_cli.formats.extent import section_of
from rerank_cli.records import Place, Record, Rejection, Request


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records; `reached` is the input position after them.

    `bytes_before` and `bytes_read` are what was read of the input when it was begun and when it was full.

    `early`: it was closed before it was full, by `ChunkCutter.close`.
    """

    number: int
    records: Sequence[Record]
    pairs: int
    bytes_before: int
    bytes_read: int
    reached: InputPosition
    early: bool = False


class ChunkCutter:
    """Iterates chunks of at most `chunk_pairs` pairs; a larger request is a chunk of its own.

    A record without pairs (a rejection) counts as one pair, so that a file of rejections only is cut too. No chunk
    spans two `Sections` of a file, so that a shard finds its chunks without reading all records before. A chunk also
    ends where `ends_at` says so of the hash of the input: at the places where an earlier run closed one early.
    """

    def __init__(
        self,
        records: Iterable[Record],
        chunk_pairs: int,
        bytes_read: Callable[[], int],
        input_hash: InputHash,
        ends_at: Callable[[str], bool] | None = None,
        bytes_before: int = 0,
    ) -> None:
        self._records = records
        self._chunk_pairs = chunk_pairs
        self._bytes_read = bytes_read
        self._input_hash = input_hash
        self._ends_at = ends_at
        self._held: list[Record] = []
        self._sections = Sections()
        self._weight = self._pairs = self._number = 0
        self._bytes_before = bytes_before

    def __iter__(self) -> Iterator[Chunk]:
        for record in self._records:
            weight = weight_of(record)
            begins = self._sections.begins_at(record)
            if self._held and (begins or self._weight + weight > self._chunk_pairs):
                yield self._chunk()
            self._held.append(record)
            self._input_hash.add(record)
            self._weight += weight
            self._pairs += len(record.candidates) if isinstance(record, Request) else 0
            early = self._ends_at is not None and self._ends_at(self._input_hash.reached().digest)
            if early or self._weight >= self._chunk_pairs:
                yield self._chunk(early)
        if self._held:
            yield self._chunk()

    def close(self) -> Chunk | None:
        """The records that are held as a chunk, although it is not full. In the thread that iterates only."""
        return self._chunk(early=True) if self._held else None

    def _chunk(self, early: bool = False) -> Chunk:
        before, self._bytes_before = self._bytes_before, self._bytes_read()
        reached = self._input_hash.reached()
        chunk = Chunk(self._number, self._held, self._pairs, before, self._bytes_before, reached, early)
        self._held, self._weight, self._pairs, self._number = [], 0, 0, self._number + 1
        return chunk


class Sections:
    """Where a chunk ends because the next record is in another section of its file, see `section_of`."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None

    def begins_at(self, record: Record) -> bool:
        """Whether a record begins a section, but for the first one of a file. To be called for every record."""
        place = record.position.place
        before, self._last = self._last, section_of(place) if place else None
        return self._last is not None and self._last[1] > 0 and self._last != before


def weight_of(record: Record) -> int:
    """How many pairs a record counts for in a chunk: one without pairs counts as one."""
    return max(1, len(record.candidates)) if isinstance(record, Request) else 1


@dataclass(frozen=True, slots=True)
class InputPosition:
    """A point between two records. `digest` is the hash of all records before it.

    To reach it without reading those: start at `place`, where the digest was `before`, and skip `skip` records.
    """

    digest: str = ""
    place: Place | None = None
    before: str = ""
    skip: int = 0


class InputHash:
    """A chained hash of the content of records, in order, that continues from `digest`."""

    def __init__(self, digest: str = "") -> None:
        self._digest = self._before = bytes.fromhex(digest)
        self._place: Place | None = None
        self._skip = 0

    def add(self, record: Record) -> None:
        place = record.position.place
        if place is None or place != self._place:
            self._place, self._before, self._skip = place, self._digest, 0
        self._skip += 1
        self._digest = hashlib.blake2b(self._digest + _content(record), digest_size=16).digest()

    def reached(self) -> InputPosition:
        return InputPosition(self._digest.hex(), self._place, self._before.hex(), self._skip)


def _content(record: Record) -> bytes:
    """The content of a record, without its path and line."""
    if isinstance(record, Rejection):
        fields: tuple[Any, ...] = (record.code, record.id, record.raw)
    else:
        sources = [candidate.source for candidate in record.candidates]
        limits = (record.top_n, record.max_tokens_per_doc, record.return_documents)
        fields = (record.id, record.query, record.instruction, sources, limits, dict(record.extra))
        if record.given is not None:
            fields = (*fields, dict(record.given))
        options = (record.raw_scores, record.truncation, record.rank_fields or None)
        if any(option is not None for option in options):
            fields = (*fields, options)
    return orjson.dumps(fields, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
