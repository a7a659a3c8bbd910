"""Records to chunks: runs of whole requests with about so many pairs.

Boundaries depend on the records and the size alone, never on timing or on where a run was resumed. Chunks are the unit
of commit, of progress and of work handed out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rerank_cli.records import Place, Record, Rejection, Request


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records.

    `bytes_read` is how far the input had been read when the chunk was full, `reached` where its last record ends.
    """

    number: int
    records: Sequence[Record]
    pairs: int
    bytes_read: int
    reached: InputPosition


def cut(
    records: Iterable[Record], chunk_pairs: int, bytes_read: Callable[[], int], trace: InputHash
) -> Iterator[Chunk]:
    """Close a chunk before the request that would take it over `chunk_pairs`; a larger one is a chunk of its own.

    Records without pairs (rejections) count as one, so that a file of nothing else is cut too.
    """
    held: list[Record] = []
    weight = pairs = number = 0
    for record in records:
        size = len(record.candidates) if isinstance(record, Request) else 0
        if held and weight + max(1, size) > chunk_pairs:
            yield Chunk(number, held, pairs, bytes_read(), trace.reached())
            held, weight, pairs, number = [], 0, 0, number + 1
        held.append(record)
        trace.add(record)
        weight += max(1, size)
        pairs += size
    if held:
        yield Chunk(number, held, pairs, bytes_read(), trace.reached())


@dataclass(frozen=True, slots=True)
class InputPosition:
    """A point between two records. `digest` stands for all records before it.

    To come there without those: read from `place` on, where the digest was `before`, and pass over `skip` records.
    """

    digest: str = ""
    place: Place | None = None
    before: str = ""
    skip: int = 0


class InputHash:
    """A chained hash over the content of records, in order, from `digest` on."""

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
    """What a record says, whatever file and line it stands in."""
    if isinstance(record, Rejection):
        said: tuple[Any, ...] = (record.code, record.id, record.raw)
    else:
        sources = [candidate.source for candidate in record.candidates]
        limits = (record.top_n, record.max_tokens_per_doc, record.return_documents)
        said = (record.id, record.query, record.instruction, sources, limits, dict(record.extra))
        if record.given is not None:
            said = (*said, dict(record.given))
    return orjson.dumps(said, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
