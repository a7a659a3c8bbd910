"""Records to chunks: whole consecutive requests with about a given number of pairs.

Chunks are the unit of commits, progress and work distribution. Their boundaries depend on the records and the chunk
size only, not on timing or on where a run was resumed.
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
    """Consecutive records; `reached` is the input position after them, `bytes_read` what was read when it was full."""

    number: int
    records: Sequence[Record]
    pairs: int
    bytes_read: int
    reached: InputPosition


def cut(
    records: Iterable[Record], chunk_pairs: int, bytes_read: Callable[[], int], input_hash: InputHash
) -> Iterator[Chunk]:
    """Chunks of at most `chunk_pairs` pairs; a larger request is a chunk of its own.

    A record without pairs (a rejection) counts as one pair, so that a file of rejections only is cut too.
    """
    held: list[Record] = []
    weight = pairs = number = 0
    for record in records:
        size = len(record.candidates) if isinstance(record, Request) else 0
        if held and weight + max(1, size) > chunk_pairs:
            yield Chunk(number, held, pairs, bytes_read(), input_hash.reached())
            held, weight, pairs, number = [], 0, 0, number + 1
        held.append(record)
        input_hash.add(record)
        weight += max(1, size)
        pairs += size
    if held:
        yield Chunk(number, held, pairs, bytes_read(), input_hash.reached())


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
    return orjson.dumps(fields, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
