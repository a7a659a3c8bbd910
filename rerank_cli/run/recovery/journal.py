"""The journal: scores of rows of chunks that are not committed yet. On a slow device a chunk may take minutes.

A resumed run plans the same rows and reuses the journalled ones. An entry identifies its chunk by a hash of the
fingerprint and of the input up to the chunk's end, and its row by a CRC-32 of the pairs in it, and has a checksum: rows
without a valid matching entry are scored again. Chunks that take less than a few seconds are not journalled.

An entry without scores marks a chunk that was closed early because its input paused: a resumed run closes it there too.
It is written before the chunk is scored, without waiting for the disk: it must survive the process, not the machine.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from rerank_cli.engine.results import Logits
from rerank_cli.engine.rows.plan import Index
from rerank_cli.run.recovery.fingerprint import Fingerprint
from rerank_cli.storage.files import replace_file, writing

_HEAD = struct.Struct("<16sIIII")  # chunk, slice, CRC-32 of the row's pairs, number of scores, checksum of the entry
_EARLY = 0xFFFFFFFF  # in place of a slice: the chunk was closed early


class Journal:
    """Entries of chunks that are not committed; `committed` returns how many chunks of this run are.

    Used by the scoring thread only; `committed` may read what another thread writes. Without a path nothing is kept.
    """

    def __init__(
        self, path: Path | None, mark: Fingerprint, committed: Callable[[], int], interval: float = 5.0
    ) -> None:
        """Read the valid entries of the file and truncate it after them. `interval` is in seconds. OutputError."""
        self._path = path
        self._mark = orjson.dumps(mark, option=orjson.OPT_SORT_KEYS)
        self._committed = committed
        self._interval = interval
        self._known: dict[tuple[bytes, int], dict[int, Logits]] = {}  # by chunk and slice, by row
        self._entries: dict[bytes, list[bytes]] = {}  # by chunk
        self._early: set[bytes] = set()  # chunks of the earlier run
        self._begun: deque[bytes] = deque()
        self._dropped = 0
        self._unwritten: list[bytes] = []
        self._written_at = time.monotonic()
        if path is not None and path.exists():
            self._read(path)

    @property
    def kept(self) -> int:
        """Number of scores read from the file of an earlier run."""
        return sum(len(scores) for rows in self._known.values() for scores in rows.values())

    @property
    def ends_at(self) -> Callable[[str], bool] | None:
        """Whether the earlier run closed a chunk early at this input digest; None if it closed none early."""
        early = frozenset(self._early)
        return (lambda digest: self._key(digest) in early) if early else None

    def notes(self, digest: str, part: int, left: str = "", *, early: bool = False) -> SliceNotes:
        """The entries of slice `part` of the chunk that ends at this input digest. To be called in slice order.

        `left` names the subset of the slice's pairs that is to be scored, "" for all of them. `early`: the chunk was
        closed before it was full. Raises OutputError.
        """
        chunk = self._key(digest)
        if not self._begun or self._begun[-1] != chunk:
            self._begun.append(chunk)
            self._drop_committed()
            if early and chunk not in self._early:
                self._mark_early(chunk)
        earlier = CarriedNotes(zlib.crc32(left.encode()), self._known.get((chunk, part), {}))
        return SliceNotes(self, chunk, part, earlier)

    def _key(self, digest: str) -> bytes:
        return hashlib.blake2b(self._mark + digest.encode(), digest_size=16).digest()

    def _mark_early(self, chunk: bytes) -> None:
        if self._path is not None:
            entry = _HEAD.pack(chunk, _EARLY, 0, 0, _check(chunk, _EARLY, 0, b""))
            self._entries.setdefault(chunk, []).append(entry)
            with writing(str(self._path)), open(self._path, "ab", buffering=0) as file:
                file.write(entry)

    def add(self, chunk: bytes, part: int, row: int, scores: Logits) -> None:
        """Add the scores of a row, [m] or [m, layers], and write if the interval has passed. Raises OutputError."""
        if self._path is None:
            return
        body = scores.astype("<f4").tobytes()
        entry = _HEAD.pack(chunk, part, row, scores.size, _check(chunk, part, row, body)) + body
        self._entries.setdefault(chunk, []).append(entry)
        self._unwritten.append(entry)
        if time.monotonic() - self._written_at >= self._interval:
            self.write()

    def write(self) -> None:
        """Append new entries to the file and make them durable. Raises OutputError."""
        if self._path is not None and self._unwritten:
            with writing(str(self._path)), open(self._path, "ab", buffering=0) as file:
                file.write(b"".join(self._unwritten))
                os.fsync(file.fileno())
        self._unwritten = []
        self._written_at = time.monotonic()

    def _drop_committed(self) -> None:
        """Drop the entries of committed chunks, from memory and from the file."""
        before = len(self._entries)
        while self._dropped < self._committed() and self._begun:
            self._entries.pop(self._begun.popleft(), None)
            self._dropped += 1
        if len(self._entries) == before or self._path is None:
            return
        rest = [entry for entries in self._entries.values() for entry in entries]
        self._known = {key: rows for key, rows in self._known.items() if key[0] in self._entries}
        if self._path.exists():
            replace_file(self._path, b"".join(rest))
            self._unwritten = []
        else:
            self._unwritten = rest
            self._written_at = time.monotonic()

    def _read(self, path: Path) -> None:
        data, at = path.read_bytes(), 0
        while at + _HEAD.size <= len(data):
            chunk, part, row, count, check = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + 4 * count
            body = data[at + _HEAD.size : end]
            if len(body) != 4 * count or _check(chunk, part, row, body) != check:
                break
            if part == _EARLY:
                self._early.add(chunk)
            else:
                self._known.setdefault((chunk, part), {})[row] = np.frombuffer(body, dtype="<f4").astype(np.float32)
            self._entries.setdefault(chunk, []).append(data[at:end])
            at = end
        with writing(str(path)):
            os.truncate(path, at)


def _check(chunk: bytes, part: int, row: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(chunk + struct.pack("<III", part, row, len(body))))


@dataclass(frozen=True, slots=True)
class CarriedNotes:
    """Scores of rows of one slice, as `contract.RowNotes`. Can be pickled for a worker process; not written to disk.

    `rows` has flat scores by the CRC-32 of the row's pairs, which starts from `seed`.
    """

    seed: int
    rows: dict[int, Logits]

    def known(self, pairs: Index) -> Logits | None:
        found = self.rows.get(self.row(pairs))
        return found if found is None or len(found) == len(pairs) else found.reshape(len(pairs), -1)

    def done(self, pairs: Index, scores: Logits) -> None:
        self.rows[self.row(pairs)] = scores.reshape(-1)

    def row(self, pairs: Index) -> int:
        return zlib.crc32(pairs.astype("<i8").tobytes(), self.seed)


@dataclass(frozen=True, slots=True)
class SliceNotes:
    """One slice in the journal, as `contract.RowNotes`. `earlier` are the rows of an earlier run."""

    journal: Journal
    chunk: bytes
    part: int
    earlier: CarriedNotes

    def known(self, pairs: Index) -> Logits | None:
        return self.earlier.known(pairs)

    def done(self, pairs: Index, scores: Logits) -> None:
        self.journal.add(self.chunk, self.part, self.earlier.row(pairs), scores)

    def carried(self) -> CarriedNotes:
        """A copy for a worker process, which has no journal."""
        return CarriedNotes(self.earlier.seed, dict(self.earlier.rows))
