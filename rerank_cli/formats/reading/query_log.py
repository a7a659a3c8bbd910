"""Which queries a table of pairs has had, and where each began: some 16 bytes a query, and a file to go on from.

A key is kept as a 64-bit hash. Two keys with one hash (chance 3e-6 at ten million) would reject a good group, loudly.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_cli.records import Place
from rerank_cli.storage.files import Committed, Hash, writing

_ENTRY = np.dtype([("key", "<u8"), ("place", "<u8")])
_ROW_BITS = 48
_RECENT = 1 << 17

Entries: TypeAlias = "npt.NDArray[np.void]"


class QueryLog:
    """The first place of every query. `log`, once it is given a file, holds it on disk too.

    `first` may run on another thread than `sync`.
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._settled: list[Entries] = []
        self._unwritten: deque[tuple[int, int]] = deque()
        self._log: Path | None = None
        self._length = 0
        self._hash = _hash(b"")

    def first(self, key: object, place: Place) -> tuple[int, int]:
        """File and row of the query's first place, which is this one for a query that is new."""
        code = _code(place)
        number = _number(key)
        found = self._recent.get(number)
        if found is None:
            found = self._find_settled(number)
        if found is None:
            found = self._recent[number] = code
            if self._log:
                self._unwritten.append((number, code))
            if len(self._recent) >= _RECENT:
                self._settle()
        return found >> _ROW_BITS, found & ((1 << _ROW_BITS) - 1)

    def keep_in(self, log: Path) -> None:
        """From now on `sync` writes what is new to this file; what an earlier run left there goes, unless taken up."""
        self._log = log

    def take_up(self, kept: Committed) -> bool:
        """Know the queries that an earlier run had put away; False if the file is not what was `kept`.

        Among them may be some that are met again: their first place is the one they have.
        """
        if self._log is None or not self._log.is_file():
            return False
        with writing(str(self._log)), open(self._log, "rb") as file:
            content = file.read(kept.length)
        if len(content) != kept.length or _hash(content).hexdigest() != kept.digest:
            return False
        self._hash, self._length = _hash(content), kept.length
        self._settled = [np.sort(np.frombuffer(content, dtype=_ENTRY), order="key")]
        return True

    def sync(self) -> Committed | None:
        """Make durable what was seen until now, and say what that is; None where nothing is kept."""
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

    def _find_settled(self, number: int) -> int | None:
        for entries in self._settled:
            at = int(np.searchsorted(entries["key"], np.uint64(number)))
            if at < len(entries) and int(entries["key"][at]) == number:
                return int(entries["place"][at])
        return None

    def _settle(self) -> None:
        """Recent entries into sorted blocks, of which each is at least twice as long as the next."""
        block = np.sort(np.array(list(self._recent.items()), dtype=_ENTRY), order="key")
        self._recent = {}
        while self._settled and len(self._settled[-1]) < 2 * len(block):
            block = np.sort(np.concatenate([self._settled.pop(), block]), order="key")
        self._settled.append(block)


def _code(place: Place) -> int:
    return place.file << _ROW_BITS | place.rows


def _number(key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _hash(content: bytes) -> Hash:
    return hashlib.blake2b(content, digest_size=16)
