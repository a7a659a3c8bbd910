"""Inputs as byte streams: stdin or a file, decompressed if needed, with a count of the bytes read from disk."""

from __future__ import annotations

import hashlib
import io
import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.storage.compression import Decompressed, recognise
from rerank_cli.storage.foreign import foreign
from rerank_cli.storage.objects.remote_file import RemoteFile, unreadable
from rerank_cli.storage.objects.stores import store_of
from rerank_cli.storage.paths import STREAM
from rerank_cli.storage.remote import is_remote

WhenIdle: TypeAlias = Callable[[], bool]

BLOCK = 1 << 20
PARQUET_MAGIC = b"PAR1"
BOM = b"\xef\xbb\xbf"
PAUSE = 0.04  # seconds without new bytes of a stream, after which it is said to be idle
_HEAD = 8
# Of files in a folder; Arrow before the JSON that `datasets.save_to_disk` puts beside it.
_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".csv", ".tsv", ".json", ".gz", ".zst")


class Counted(io.RawIOBase):
    """Bytes of a file or of stdin; `taken` counts them. A read returns what is available: it never waits to fill up.

    `when_idle`, if set, is called by a read of a stream that has waited for `PAUSE` seconds, again and again until it
    returns True or new bytes arrive.
    """

    when_idle: WhenIdle | None = None

    def __init__(self, stream: BinaryIO, path: str, owned: bool) -> None:
        self._stream = stream
        self._path = path
        self._owned = owned
        # Without a copy of the bytes; a buffered stream would wait to fill the buffer.
        buffered = isinstance(stream, io.BufferedReader)
        self._into = getattr(stream, "readinto1" if buffered else "readinto", None)
        self._head = b""
        self.taken = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.taken

    def peek_head(self) -> bytes:
        """The first bytes, without consuming them."""
        while len(self._head) < _HEAD and (more := self._read(_HEAD - len(self._head))):
            self._head += more
        return self._head

    def readinto(self, buffer: Any) -> int:
        if not self._head and self._into is not None and self.when_idle is None:
            try:
                count: int = self._into(buffer) or 0
            except OSError as error:
                raise InputError(f"{self._path}: cannot be read: {error.strerror or error}") from error
            self.taken += count
            return count
        # Reading on after the head may block, but the head is shorter than any record: a reader needs more anyway.
        room = len(buffer) - len(self._head)
        block = self._head + self._read(room) if room > 0 else self._head[: len(buffer)]
        self._head = self._head[len(block) :]
        buffer[: len(block)] = block
        self.taken += len(block)
        return len(block)

    def go_to(self, offset: int) -> None:
        """Continue at the byte `offset`. Only for a file, or before anything is read."""
        if offset != self.taken:
            self._stream.seek(offset)
            self._head, self.taken = b"", offset

    def is_idle(self) -> bool:
        """Whether no new byte, and not the end, arrives within `PAUSE` seconds. Always false for a regular file."""
        with suppress(OSError):  # an object without a file descriptor in place of stdin
            poll = select.poll()
            poll.register(self._stream, select.POLLIN)
            return not poll.poll(PAUSE * 1000)
        return False

    def _read(self, size: int) -> bytes:
        while self.when_idle and self.is_idle() and not self.when_idle():
            pass
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
    """An open input: `content` is decompressed, `counted` is the raw stream below it."""

    path: str
    name: str
    compression: str | None
    counted: Counted
    content: io.BufferedReader

    @property
    def taken(self) -> int:
        """Bytes on disk of the content that was consumed; in a compressed input an estimate by the share of content."""
        consumed = self.content.tell()
        if not self.compression:
            return consumed
        decompressed = self.content.raw.tell()
        return self.counted.taken * consumed // decompressed if decompressed else self.counted.taken

    def length(self) -> int:
        """The number of bytes of content. A stream and compressed data are read to their end for it."""
        if not self.compression and is_file(self.path):
            found = stamp_of(self.path)
            return found.size if found else 0
        while self.content.read(BLOCK):
            pass
        return self.content.tell()

    def at(self, offset: int) -> Opened:
        """The same input, `offset` bytes of content further: a plain file is seeked, anything else read and dropped."""
        if offset and not self.compression and is_file(self.path):
            self.content.detach()
            self.counted.go_to(offset)
            return replace(self, content=io.BufferedReader(cast("io.RawIOBase", self.counted), BLOCK))
        while offset > 0 and (block := self.content.read(min(offset, BLOCK))):
            offset -= len(block)
        return self


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identifies the content of an input without reading all of it.

    Of a local file the size, the time of its last change and a hash of its first 64 KiB; of a remote one the size, 0
    and its version, which is the ETag.
    """

    size: int
    changed_ns: int
    head: str


def stamp_of(path: str) -> Stamp | None:
    """An input's stamp, None for what can be read only once (stdin, a pipe). InputError for a folder or no file."""
    if path == STREAM:
        return None
    if not path:
        raise InputError("the input path is empty")
    if is_remote(path):
        return _remote_stamp(path)
    try:
        info = Path(path).stat()
        if stat.S_ISDIR(info.st_mode):
            raise InputError(f"{shown(path, 300)}: is a folder (expected a file). Fix: {_files_in(path)}")
        if not stat.S_ISREG(info.st_mode):
            return None
        with open(path, "rb", buffering=0) as file:
            head = hashlib.blake2b(file.read(1 << 16), digest_size=8).hexdigest()
    except (OSError, ValueError) as error:
        raise not_readable(path, error) from error
    return Stamp(info.st_size, info.st_mtime_ns, head)


def _remote_stamp(path: str) -> Stamp:
    store, key = store_of(path)
    try:
        if not key or key.endswith("/"):
            fix = f"Fix: name the files in it, as with {shown(path.rstrip('/'), 300)}/*.jsonl"
            raise InputError(f"{shown(path, 300)}: is a folder (expected a file). {fix}")
        found = store.facts(key)
    except OSError as error:
        raise unreadable(path, error) from error
    return Stamp(found.size, 0, found.version)


def _files_in(path: str) -> str:
    """Advice to name the files of a folder, with a pattern for the most telling suffix among them."""
    with suppress(OSError):
        suffixes = {entry.suffix for entry in Path(path).iterdir() if entry.is_file()}
        found = next((suffix for suffix in _SUFFIXES if suffix in suffixes), None)
        if found:
            return f"name the files in it, {shown(path.rstrip('/'), 300)}/*{found}"
    return "name the files in it"


def is_file(path: str) -> bool:
    """Whether it can be read more than once, and from any offset."""
    return path != STREAM and (is_remote(path) or Path(path).is_file())


def is_local(path: str) -> bool:
    """Whether it is not remote: only local files are read at random places."""
    return not is_remote(path)


def open_file(path: str) -> BinaryIO:
    """A file that can be read at any offset, local or remote. Raises InputError."""
    if is_remote(path):
        return cast("BinaryIO", RemoteFile(path))
    try:
        return cast("BinaryIO", open(path, "rb", buffering=0))
    except OSError as error:
        raise not_readable(path, error) from error


def arrow_file(path: str) -> tuple[Any, int]:
    """The same for pyarrow, with its size in bytes. Raises InputError or OSError."""
    import pyarrow as pa

    if is_remote(path):
        remote = RemoteFile(path)
        return pa.PythonFile(remote, mode="r"), remote.facts.size
    return pa.OSFile(os.fsencode(path)), Path(path).stat().st_size


def read_whole(path: str) -> bytes:
    """The content of a small file, as it is on disk. Raises InputError."""
    with open_file(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise not_readable(path, error) from error


def open_bytes(path: str) -> Opened:
    """Open stdin or a file; its first bytes decide on decompression. Raises InputError, also for a foreign format."""
    name = "<stdin>" if path == STREAM else shown(path, 4096)
    if path == STREAM:
        if sys.stdin is None:
            raise InputError("<stdin>: is closed. Fix: name an input file")
        # A parent process may have left it non-blocking, where "no data yet" looks like the end.
        with suppress(OSError):
            os.set_blocking(sys.stdin.fileno(), True)
        counted = Counted(sys.stdin.buffer, name, owned=False)
    else:
        counted = Counted(open_file(path), name, owned=True)
    compression = recognise(counted.peek_head())
    content: io.BufferedReader = io.BufferedReader(cast("io.RawIOBase", counted), BLOCK)
    try:
        if compression:
            content = io.BufferedReader(Decompressed(content, compression, name), BLOCK)
        if problem := foreign(content.peek(), name):
            raise InputError(problem)
    except BaseException:
        content.close()
        raise
    return Opened(path, name, compression, counted, content)


def not_readable(path: str, error: Exception) -> InputError:
    """For a path that the system does not open or list."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return InputError(
        f"{shown(path, 300)}: {'there is no such file' if isinstance(error, FileNotFoundError) else reason}"
    )
