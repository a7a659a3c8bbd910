"""Writing: errors of the system as one line, hashes of what is written, small files, and streams written in place.

Every OSError becomes one
OutputError that names the path, except BrokenPipeError, which is re-raised: a closed pipe is not a failed output.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from rerank_cli.display import shown
from rerank_cli.errors import OutputError, RefusedError
from rerank_cli.storage.paths import successor_of, sync_folder

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

    def publish(self, attributes: Mapping[str, str] | None = None) -> None:  # noqa: ARG002 - see `PartialFile`
        """A stream has no attributes."""
        self.abandon()


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
