"""What was read, as a hash that can be taken up anywhere: each digest is made of the one before and of one record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from rerank_cli.records import Place, Record, Rejection


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
