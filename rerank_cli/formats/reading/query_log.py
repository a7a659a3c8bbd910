"""The queries of a table of pairs and where each one began: about 16 bytes per query, and a file to resume from.

A key is stored as a 64-bit hash. Two keys with the same hash (probability 3e-6 for ten million) reject a good group
with an error.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rerank_cli.records import Place
from rerank_cli.storage.files import Committed, writing

_ENTRY = np.dtype([("key", "<u8"), ("place", "<u8")])
_ROW_BITS = 48
_RECENT = 1 << 17
_HASH_BYTES = 16


class QueryLog:
    """The first place of every query; after `keep_in` also in a file. `first` may run in parallel with `sync`."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._sorted: list[npt.NDArray[np.void]] = []
        self._unwritten: deque[tuple[int, int]] = deque()
        self._log: Path | None = None
        self._length = 0
        self._hash = hashlib.blake2b(digest_size=_HASH_BYTES)

    def first(self, key: object, place: Place) -> tuple[int, int]:
        """File and row where the query began: those of `place` if the query is new."""
        number = _hash_of(key)
        found = self._find(number)
        if found is None:
            found = self._recent[number] = place.file << _ROW_BITS | place.rows
            if self._log:
                self._unwritten.append((number, found))
            if len(self._recent) >= _RECENT:
                self._sort_recent()
        return found >> _ROW_BITS, found & ((1 << _ROW_BITS) - 1)

    def __contains__(self, key: object) -> bool:
        return self._find(_hash_of(key)) is not None

    def keep_in(self, log: Path) -> None:
        """Let `sync` append new queries to this file. Its old content is overwritten unless it is restored."""
        self._log = log

    def restore(self, kept: Committed) -> bool:
        """Load the queries of an earlier run; False if the file does not match `kept`.

        It may contain queries that are read again: their first place stays what it was.
        """
        if self._log is None or not self._log.is_file():
            return False
        with writing(str(self._log)), open(self._log, "rb") as file:
            content = file.read(kept.length)
        found = hashlib.blake2b(content, digest_size=_HASH_BYTES)
        if len(content) != kept.length or found.hexdigest() != kept.digest:
            return False
        self._hash, self._length = found, kept.length
        self._sorted = [np.sort(np.frombuffer(content, dtype=_ENTRY), order="key")]
        return True

    def sync(self) -> Committed | None:
        """Make the queries seen so far durable, and return the extent of the file; None if there is nothing to keep."""
        if self._log is None or not (self._unwritten or self._length):
            return None
        waiting = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if waiting:
            data = np.array(waiting, dtype=_ENTRY).tobytes()
            with writing(str(self._log)), open(self._log, "r+b" if self._length else "wb") as file:
                file.truncate(self._length)
                file.seek(self._length)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._hash.update(data)
            self._length += len(data)
        return Committed(self._length, self._hash.hexdigest())

    def _find(self, number: int) -> int | None:
        if (found := self._recent.get(number)) is not None:
            return found
        for entries in self._sorted:
            at = int(np.searchsorted(entries["key"], np.uint64(number)))
            if at < len(entries) and int(entries["key"][at]) == number:
                return int(entries["place"][at])
        return None

    def _sort_recent(self) -> None:
        """Move the recent entries to sorted blocks, each at least twice as long as the next."""
        block = np.sort(np.array(list(self._recent.items()), dtype=_ENTRY), order="key")
        self._recent = {}
        while self._sorted and len(self._sorted[-1]) < 2 * len(block):
            block = np.sort(np.concatenate([self._sorted.pop(), block]), order="key")
        self._sorted.append(block)


def _hash_of(key: object) -> int:
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
