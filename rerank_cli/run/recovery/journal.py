"""Scores of rows inside a chunk that is not finished, on disk: a chunk may take minutes on a slow device.

A run begun again plans the same rows, and takes from here those that were scored. An entry names its chunk by the
hash of the run's settings and of the input up to the chunk's end, its row by the pairs in it, and has a checksum: one
that does not fit, or was torn, is worked out again. Nothing is written for chunks that take less than a few seconds.
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
import numpy.typing as npt
import orjson

from rerank_cli.engine.plan import Index
from rerank_cli.run.recovery.fingerprint import Fingerprint
from rerank_cli.storage.files import replace_file, writing

Scores = npt.NDArray[np.float32]

_HEAD = struct.Struct("<16sIIII")  # chunk, slice, hash of the row's pairs, scores, checksum of all the others
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class _Row:
    """Which row of which slice of which chunk: the chunk by its digest, the row by the CRC-32 of its pairs."""

    chunk: bytes
    slice: int
    pairs: int


class Journal:
    """Entries of chunks that are not committed. `committed` says how many chunks of this run are.

    Used by the thread that scores, but for `committed`, which looks at what another one counts. Without a path it keeps
    nothing.
    """

    def __init__(
        self, path: Path | None, mark: Fingerprint, committed: Callable[[], int], patience: float = _PATIENCE
    ) -> None:
        self._path = path
        self._mark = orjson.dumps(mark, option=orjson.OPT_SORT_KEYS)
        self._committed = committed
        self._patience = patience
        self._known: dict[_Row, Scores] = {}
        self._entries: dict[bytes, list[bytes]] = {}
        self._begun: deque[bytes] = deque()
        self._dropped = 0
        self._waiting: list[bytes] = []
        self._written = time.monotonic()
        if path is not None:
            self._take_up(path)

    @property
    def kept(self) -> int:
        """Scores that an earlier run left."""
        return sum(len(scores) for scores in self._known.values())

    def notes(self, digest: str, part: int, left: str = "") -> SliceNotes:
        """The entries of one slice of the chunk with this digest. Chunks come in order, their slices too.

        `left` tells which of the slice's pairs are to be scored, where they are not all of them.
        """
        chunk = hashlib.blake2b(self._mark + digest.encode(), digest_size=16).digest()
        if not self._begun or self._begun[-1] != chunk:
            self._begun.append(chunk)
            self._drop_committed()
        return SliceNotes(self, chunk, part, zlib.crc32(left.encode()))

    def find(self, row: _Row) -> Scores | None:
        return self._known.get(row)

    def rows_of(self, chunk: bytes, part: int) -> dict[int, Scores]:
        """All that an earlier run left of one slice, by the hash of a row's pairs."""
        return {row.pairs: scores for row, scores in self._known.items() if (row.chunk, row.slice) == (chunk, part)}

    def add(self, row: _Row, scores: Scores) -> None:
        """Note a row's scores; those of several layers one pair after the other."""
        if self._path is None:
            return
        body = scores.astype("<f4").tobytes()
        entry = _HEAD.pack(row.chunk, row.slice, row.pairs, scores.size, _check(row, body)) + body
        self._entries.setdefault(row.chunk, []).append(entry)
        self._waiting.append(entry)
        if time.monotonic() - self._written >= self._patience:
            self.write()

    def write(self) -> None:
        """Make durable what was added. OutputError where the system refuses."""
        if self._path is not None and self._waiting:
            with writing(str(self._path)), open(self._path, "ab", buffering=0) as file:
                file.write(b"".join(self._waiting))
                os.fsync(file.fileno())
        self._waiting = []
        self._written = time.monotonic()

    def _drop_committed(self) -> None:
        """Entries of chunks that are safe are not needed any more, whether they were written or not."""
        before = len(self._entries)
        while self._dropped < self._committed() and self._begun:
            self._entries.pop(self._begun.popleft(), None)
            self._dropped += 1
        if len(self._entries) == before or self._path is None:
            return
        rest = [entry for entries in self._entries.values() for entry in entries]
        self._known = {row: scores for row, scores in self._known.items() if row.chunk in self._entries}
        if self._path.exists():
            replace_file(self._path, b"".join(rest))
            self._waiting = []
        else:
            self._waiting = rest
            self._written = time.monotonic()

    def _take_up(self, path: Path) -> None:
        """Read whole entries and cut off the rest."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        at = 0
        while at + _HEAD.size <= len(data):
            chunk, part, pairs, count, check = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + 4 * count
            row, body = _Row(chunk, part, pairs), data[at + _HEAD.size : end]
            if len(body) != 4 * count or _check(row, body) != check:
                break
            self._known[row] = np.frombuffer(body, dtype="<f4").astype(np.float32)
            self._entries.setdefault(chunk, []).append(data[at:end])
            at = end
        with writing(str(path)):
            os.truncate(path, at)


def _check(row: _Row, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(row.chunk + struct.pack("<III", row.slice, row.pairs, len(body))))


@dataclass(frozen=True, slots=True)
class SliceNotes:
    """What the journal knows of one slice, as `contract.RowNotes`."""

    journal: Journal
    chunk: bytes
    part: int
    seed: int

    def known(self, pairs: Index) -> Scores | None:
        return _by_pair(self.journal.find(self._row(pairs)), pairs)

    def done(self, pairs: Index, scores: Scores) -> None:
        self.journal.add(self._row(pairs), scores)

    def carried(self) -> CarriedNotes:
        """The same for another process, which has no journal."""
        return CarriedNotes(self.seed, self.journal.rows_of(self.chunk, self.part))

    def _row(self, pairs: Index) -> _Row:
        return _Row(self.chunk, self.part, _name(pairs, self.seed))


@dataclass(frozen=True, slots=True)
class CarriedNotes:
    """Rows of one slice with their scores, as `contract.RowNotes` that can be pickled; nothing goes to disk."""

    seed: int
    rows: dict[int, Scores]

    def known(self, pairs: Index) -> Scores | None:
        return _by_pair(self.rows.get(_name(pairs, self.seed)), pairs)

    def done(self, pairs: Index, scores: Scores) -> None:
        self.rows[_name(pairs, self.seed)] = scores.reshape(-1)


def _name(pairs: Index, seed: int) -> int:
    return zlib.crc32(pairs.astype("<i8").tobytes(), seed)


def _by_pair(found: Scores | None, pairs: Index) -> Scores | None:
    """Scores as they stand in an entry, flat, to one row a pair where there are several layers."""
    return found if found is None or len(found) == len(pairs) else found.reshape(len(pairs), -1)
