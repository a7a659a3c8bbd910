"""Atomic output files, and streams that are written in place.

An output is written under its final name plus `.partial` and renamed when complete. Every OSError becomes one
OutputError that names the path, except BrokenPipeError, which is re-raised: a closed pipe is not a failed output.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from rerank_cli.display import shown
from rerank_cli.errors import OutputError, RefusedError
from rerank_cli.storage.paths import final_path, partial_path, successor_of, sync_folder

Hash: TypeAlias = "hashlib.blake2b"


@dataclass(frozen=True, slots=True)
class Committed:
    """The durable part of an output: bytes of a file, or parts of a folder, and the hash of their content.

    Enough to reopen the output and continue after that point. Streams have no hash.
    """

    length: int
    digest: str = ""


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Convert an OSError into an OutputError that names the path; BrokenPipeError is re-raised."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"{shown(path, 300)}: cannot be written: {reason}") from error


def new_hash(data: bytes = b"") -> Hash:
    return hashlib.blake2b(data, digest_size=16)


def update_hash(hash: Hash, file: BinaryIO, length: int) -> int:
    """Add the file's next `length` bytes to the hash; returns the number of bytes read."""
    done = 0
    while done < length and (block := file.read(min(1 << 20, length - done))):
        hash.update(block)
        done += len(block)
    return done


def not_as_committed(path: str) -> RefusedError:
    """For the output of an earlier run that is missing, shorter or changed."""
    return RefusedError(f"{shown(path, 300)}: its .partial does not match its checkpoint. Fix: --restart")


def replace_file(path: Path, data: bytes) -> None:
    """Replace a small file atomically and durably. Raises OutputError."""
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
    """A file under its `.partial` name, `path`, until `publish` renames it. Unbuffered: closing it writes nothing.

    With `committed`, the file of an earlier run is continued: bytes after that point are cut off. Raises RefusedError
    if the bytes before it do not have the committed hash.
    """

    def __init__(self, path: str, committed: Committed | None = None) -> None:
        self._path = path
        self.path = partial_path(path)
        self._length = 0
        self._hash = new_hash()
        with writing(path):
            file = open(self.path, "r+b" if committed else "wb", buffering=0)  # noqa: SIM115 - open until published
            self._file = cast("BinaryIO", file)
            if committed is None:
                sync_folder(self.path.parent)
                return
            self._length = update_hash(self._hash, self._file, committed.length)
            if (self._length, self._hash.hexdigest()) != (committed.length, committed.digest):
                self._file.close()
                raise not_as_committed(path)
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
            os.replace(self.path, final)  # noqa: PTH105 - the rename must be atomic
            sync_folder(final.parent)

    def abandon(self) -> None:
        self._file.close()


class Stream:
    """stdout, a device or a named pipe. Closed at the end if `owned`; stdout is not."""

    path: Path | None = None

    def __init__(self, file: BinaryIO, name: str, owned: bool) -> None:
        self._file = file
        self._name = name
        self._owned = owned
        self._length = 0
        self._durable = False
        with suppress(OSError):  # a file in memory has no descriptor
            self._durable = stat.S_ISREG(os.fstat(file.fileno()).st_mode)

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

    def abandon(self) -> None:
        if self._owned:
            with writing(self._name):
                self._file.close()

    publish = abandon


ByteFile: TypeAlias = PartialFile | Stream
"""A destination for bytes. `sync` makes durable what is written and returns it; `abandon` is allowed in any state."""


def open_special(path: str) -> Stream:
    """A device, named pipe or descriptor, opened for appending: a redirected file keeps its content."""
    with writing(path):
        return Stream(open(path, "ab", buffering=0), path, owned=True)


def append_to_special(path: str, data: bytes) -> None:
    special = open_special(path)
    special.write(data)
    special.abandon()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write everything: one call to an unbuffered file may write only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
