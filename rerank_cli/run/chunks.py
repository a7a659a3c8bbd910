"""Records to chunks: runs of whole requests with about so many pairs.

Boundaries depend on the records and the size alone, never on timing or on where a run was resumed. Chunks are the unit
of commit, of progress and of work handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rerank_cli.records import Record, Request
from rerank_cli.run.trace import InputHash, InputPosition


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
