"""Files that appear whole or not at all, and streams that are written as they come.

A file is written beside its final name, with `.partial` behind it. Every failure of the system is one OutputError that
names the path, except a closed pipe, which is not a failure of the output and goes through.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, cast

from rerank_cli.display import shown
from rerank_cli.errors import OutputError, RefusedError
from rerank_cli.storage.paths import final_path, partial_path, successor_of, sync_folder

_BLOCK = 1 << 20

Hash: TypeAlias = "hashlib.blake2b"


@dataclass(frozen=True, slots=True)
class Committed:
    """How much of an output is durable: bytes of a file or parts of a folder, and the hash of what they hold.

    Enough to open the same output again and go on behind that point. Streams have no hash.
    """

    length: int
    digest: str = ""


class ByteFile(Protocol):
    """Where bytes go. `sync` says how many are safe; `abandon` may follow anything. A stream has no `path`."""

    path: Path | None

    def write(self, data: bytes) -> None: ...
    def sync(self) -> Committed: ...
    def publish(self) -> None: ...
    def abandon(self) -> None: ...


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn what the system says against writing into an OutputError; a closed pipe goes through."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"{shown(path, 300)}: cannot be written: {reason}") from error


def _open_raw(path: Path, mode: str) -> BinaryIO:
    return cast("BinaryIO", open(path, mode, buffering=0))


def new_hash() -> Hash:
    return hashlib.blake2b(digest_size=16)


def update_hash(hash: Hash, file: BinaryIO, length: int) -> int:
    """Feed the file's next `length` bytes to the hash; returns how many there were."""
    done = 0
    while done < length and (block := file.read(min(_BLOCK, length - done))):
        hash.update(block)
        done += len(block)
    return done


def not_as_committed(path: str) -> RefusedError:
    """What an earlier run left is missing, shorter, or changed."""
    return RefusedError(f"{shown(path, 300)}: its .partial is not what its checkpoint says. Fix: --restart")


def replace_file(path: Path, data: bytes) -> None:
    """Put a small file in the place of another, durably and at once; OutputError where the system refuses."""
    successor = successor_of(path)
    with writing(str(path)):
        try:
            with open(successor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(successor, path)  # noqa: PTH105 - as for an output
            sync_folder(path.parent)
        except OSError:
            with suppress(OSError):
                successor.unlink(missing_ok=True)
            raise


class PartialFile:
    """A file under its provisional name until it is published. Unbuffered: nothing is left to be written at close.

    With `committed`, an earlier run's file is taken up: what lies behind that point is cut off, and what lies before it
    must be what was committed, else RefusedError.
    """

    def __init__(self, path: str, committed: Committed | None = None) -> None:
        self._path = path
        self._partial = partial_path(path)
        self.path: Path | None = self._partial
        self._length = 0
        self._hash = new_hash()
        with writing(path):
            self._file = _open_raw(self._partial, "r+b" if committed else "wb")
            if committed:
                self._take_up(committed)
            else:
                sync_folder(self._partial.parent)

    def _take_up(self, committed: Committed) -> None:
        self._length = update_hash(self._hash, self._file, committed.length)
        if (self._length, self._hash.hexdigest()) != (committed.length, committed.digest):
            self._file.close()
            raise not_as_committed(self._path)
        self._file.truncate(committed.length)
        self._file.seek(committed.length)

    def write(self, data: bytes) -> None:
        with writing(self._path):
            write_all(self._file, data)
        self._hash.update(data)
        self._length += len(data)

    def sync(self) -> Committed:
        with writing(self._path):
            os.fsync(self._file.fileno())
        return Committed(self._length, self._hash.hexdigest())

    def publish(self) -> None:
        final = final_path(self._path)
        with writing(self._path):
            self._file.close()
            os.replace(self._partial, final)  # noqa: PTH105 - the call this whole class is about
            sync_folder(final.parent)

    def abandon(self) -> None:
        self._file.close()


class Stream:
    """stdout, a device or a named pipe. `owned` ones are closed at the end, stdout never."""

    path: Path | None = None

    def __init__(self, file: BinaryIO, name: str, owned: bool) -> None:
        self._file = file
        self._name = name
        self._owned = owned
        self._durable = _is_regular(file)
        self._length = 0

    def write(self, data: bytes) -> None:
        with writing(self._name):
            write_all(self._file, data)
            self._file.flush()
        self._length += len(data)

    def sync(self) -> Committed:
        with writing(self._name):
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
        return Committed(self._length)

    def publish(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        if self._owned:
            with writing(self._name):
                self._file.close()


def _is_regular(file: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # a file in memory
        return False


def open_special(path: str) -> Stream:
    """A device, named pipe or descriptor, opened as it is. What a redirected file holds already is kept."""
    with writing(path):
        return Stream(open(path, "ab", buffering=0), path, owned=True)


def append_to_special(path: str, data: bytes) -> None:
    """Write to a device or a pipe as it is."""
    special = open_special(path)
    special.write(data)
    special.abandon()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write everything: an unbuffered file may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
