"""From a path to bytes: stdin or a file, decompressed if need be, with a count of what was taken from disk."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.storage.compression import Decompressed, recognise
from rerank_cli.storage.paths import STREAM

BLOCK = 1 << 20
PARQUET_MAGIC = b"PAR1"
BOM = b"\xef\xbb\xbf"
_HEAD = 8
_SAMPLE = 1 << 16


class Counted(io.RawIOBase):
    """Bytes of a file or of stdin, counted as they are taken. A read returns what is there: pipes are not waited on."""

    def __init__(self, stream: BinaryIO, path: str, owned: bool) -> None:
        self._stream = stream
        self._path = path
        self._owned = owned
        self._head = b""
        self.taken = 0

    def readable(self) -> bool:
        return True

    def peek_head(self) -> bytes:
        """The first bytes, without taking them."""
        while len(self._head) < _HEAD and (more := self._read(_HEAD - len(self._head))):
            self._head += more
        return self._head

    def readinto(self, buffer: Any) -> int:
        # No record is as short as the head: whoever waits for one waits for what comes behind it.
        room = len(buffer) - len(self._head)
        block = self._head + self._read(room) if room > 0 else self._head[: len(buffer)]
        self._head = self._head[len(block) :]
        buffer[: len(block)] = block
        self.taken += len(block)
        return len(block)

    def go_to(self, offset: int) -> None:
        """Take the byte at `offset` next. Only where nothing has been taken, or from a file."""
        if offset != self.taken:
            self._stream.seek(offset)
            self._head, self.taken = b"", offset

    def _read(self, size: int) -> bytes:
        read1 = getattr(self._stream, "read1", self._stream.read)
        try:
            return cast("bytes", read1(size) or b"")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read: {error.strerror or error}") from error

    def close(self) -> None:
        if self._owned:
            self._stream.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Opened:
    """An input that is open: `content` after decompression, `counted` below it."""

    path: str
    name: str
    compression: str | None
    counted: Counted
    content: io.BufferedReader

    def at(self, offset: int) -> Opened:
        """The same input with `offset` bytes of its content behind it: sought in a plain file, else read away."""
        if not self.compression and is_file(self.path):
            self.content.detach()
            self.counted.go_to(offset)
            return replace(self, content=io.BufferedReader(cast("io.RawIOBase", self.counted), BLOCK))
        while offset > 0 and (block := self.content.read(min(offset, BLOCK))):
            offset -= len(block)
        return self


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an input file is told by without reading it whole: size, time of change, hash of its first 64 KiB."""

    size: int
    changed_ns: int
    head: str


def stamp_of(path: str) -> Stamp | None:
    """What an input is told by, None for what can be read once only (stdin, a pipe). InputError if it is no file."""
    if path == STREAM:
        return None
    if not path:
        raise InputError("the input path is empty")
    try:
        info = Path(path).stat()
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb", buffering=0) as file:
                return Stamp(
                    info.st_size, info.st_mtime_ns, hashlib.blake2b(file.read(_SAMPLE), digest_size=8).hexdigest()
                )
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path, 300)}: {_reason(error)}") from error
    if stat.S_ISDIR(info.st_mode):
        raise InputError(f"{shown(path, 300)}: is a folder (expected a file). Fix: name the files in it")
    return None


def is_file(path: str) -> bool:
    """Is it a file that can be read more than once, and from any place?"""
    return path != STREAM and Path(path).is_file()


def open_bytes(path: str) -> Opened:
    """Open stdin or a file. The first bytes decide whether it is decompressed."""
    name = "<stdin>" if path == STREAM else shown(path, 4096)
    counted = Counted(_stdin() if path == STREAM else _open(path), name, owned=path != STREAM)
    compression = recognise(counted.peek_head())
    content: io.BufferedReader = io.BufferedReader(cast("io.RawIOBase", counted), BLOCK)
    if compression:
        content = io.BufferedReader(Decompressed(content, compression, name), BLOCK)
    return Opened(path, name, compression, counted, content)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("<stdin>: is closed. Fix: name an input file")
    # A parent may have left it non-blocking, where "nothing yet" cannot be told from the end.
    with suppress(OSError):
        os.set_blocking(sys.stdin.fileno(), True)
    return sys.stdin.buffer


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise InputError(f"{shown(path, 300)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
