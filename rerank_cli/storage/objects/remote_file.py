"""A remote file that is read like a local one: at any offset, ahead of a reader that goes straight on.

Blocks of 4 MiB are requested, several at once as soon as one follows the other; at most 16 are held. Every request is
for the version that was found when the file was opened, so that a file never mixes two.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.storage.objects.store import Buffer, Facts
from rerank_cli.storage.objects.stores import store_of

BLOCK_BYTES = 4 << 20
AHEAD = 4
_MOST_BLOCKS = 16


class RemoteFile(io.RawIOBase):
    """Raises InputError for a file that is not there, cannot be read, or was changed while it was read.

    `read` returns what is left of the current block, if that is less than asked for; `readall` and `readinto` go on.
    """

    def __init__(self, path: str) -> None:
        self.name = shown(path, 4096)
        self._store, self._key = store_of(path)
        try:
            self.facts: Facts = self._store.facts(self._key)
        except OSError as error:
            raise unreadable(path, error) from error
        self._blocks: OrderedDict[int, Future[Buffer]] = OrderedDict()
        self._at = 0
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self.facts.size

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.facts.size}[whence])
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        return bytes(self._some(size))

    def readall(self) -> bytes:
        parts = []
        while part := self._some(BLOCK_BYTES):
            parts.append(bytes(part))
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, unless the file ends."""
        target = memoryview(buffer).cast("B")
        done = 0
        while done < len(target) and (part := self._some(len(target) - done)):
            target[done : done + len(part)] = part
            done += len(part)
        return done

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._blocks.clear()
        super().close()

    def _some(self, size: int) -> memoryview:
        """At most `size` bytes at the position, which moves on; empty at the end of the file."""
        number, offset = divmod(self._at, BLOCK_BYTES)
        if self._at >= self.facts.size or size <= 0:
            return memoryview(b"")
        part = memoryview(self._block(number))[offset : offset + size]
        self._at += len(part)
        return part

    def _block(self, number: int) -> Buffer:
        with self._lock:
            before = self._blocks.get(number - 1)
            wanted = self._blocks.get(number)
            last = (self.facts.size - 1) // BLOCK_BYTES
            if wanted is None and before is None:
                wanted = self._blocks[number] = Future()
                self._fetch(number, wanted)
            else:
                for following in range(number, min(number + AHEAD, last) + 1):
                    if following not in self._blocks:
                        self._blocks[following] = self._request(following)
                wanted = self._blocks[number]
                if before is not None:
                    # A reader that goes straight on does not need it again; others are kept for their next read.
                    del self._blocks[number - 1]
            self._blocks.move_to_end(number)
            while len(self._blocks) > _MOST_BLOCKS:
                self._blocks.popitem(last=False)
        try:
            return wanted.result()
        except OSError as error:
            with suppress(KeyError):
                del self._blocks[number]
            raise unreadable(self.name, error) from error

    def _request(self, number: int) -> Future[Buffer]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="read-ahead")
        return self._pool.submit(self._load, number)

    def _fetch(self, number: int, found: Future[Buffer]) -> None:
        """In this thread: a single block needs no other."""
        try:
            found.set_result(self._load(number))
        except OSError as error:
            found.set_exception(error)

    def _load(self, number: int) -> Buffer:
        start = number * BLOCK_BYTES
        return self._store.read(self._key, start, min(BLOCK_BYTES, self.facts.size - start), self.facts.version)


def unreadable(path: str, error: OSError) -> InputError:
    """For a remote path that could not be opened, read or listed."""
    name = shown(path, 300)
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name}: there is no such file")
    return InputError(f"{name}: cannot be read: {error}")
