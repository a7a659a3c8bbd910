"""Compressed streams: detected by magic bytes when read, chosen by the file's suffix when written.

A reader accepts any number of concatenated members (frames) and raises if the last one is truncated. Each written
member is complete, so a file may be truncated at the end of any member.
"""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePath
from typing import Any, BinaryIO, Protocol, cast

from rerank_cli.display import shown
from rerank_cli.errors import InputError, UsageError

_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".lz4": "lz4", ".xz": "xz"}
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\0": "xz",
}
# Input bytes per call, small enough that the output stays bounded: gzip expands at most 1,000-fold, and a zstd block of
# 128 KiB takes at least 4 bytes. The others are given a limit on the output instead.
_INPUT_BYTES = {"gzip": 1 << 15, "zstd": 1 << 10, "bzip2": 1 << 16, "lz4": 1 << 16, "xz": 1 << 16}
_LIMITED = ("bzip2", "lz4", "xz")
_OUTPUT_BYTES = 1 << 20
_MEMBER_BYTES = 1 << 18


class Decompressor(Protocol):
    """One member: the interface common to zlib, bz2, lz4, lzma and zstandard. Only `_LIMITED` have `needs_input`."""

    eof: bool
    unused_data: bytes | None
    needs_input: bool

    def decompress(self, data: bytes, /, *limit: int) -> bytes: ...


class Compressor(Protocol):
    """One member being written; `flush` ends it."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def recognise(head: bytes) -> str | None:
    """The name of the compression, given the first bytes of a file."""
    # Parallel zstd writers begin with a skippable frame: 0x184D2A50 to 5F, little-endian.
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def compression_of(path: str) -> str | None:
    """The name of the compression that an output's suffix selects."""
    return next((name for suffix, name in _SUFFIXES.items() if path.lower().endswith(suffix)), None)


def suffix_of(path: str) -> str:
    """The last suffix in lower case, without that of a compression."""
    return PurePath(path.rpartition(".")[0] if compression_of(path) else path).suffix.lower()


def new_compressor(name: str) -> tuple[bytes, Compressor]:
    """A member's header bytes and the compressor of its content. Equal input gives equal bytes.

    Raises UsageError for xz if this Python has no lzma module, an optional part of the standard library.
    """
    if name == "gzip":
        return b"", cast("Compressor", zlib.compressobj(4, zlib.DEFLATED, 31))
    if name == "bzip2":
        return b"", cast("Compressor", bz2.BZ2Compressor())
    if name == "xz":
        try:
            import lzma
        except ImportError:
            raise UsageError("xz: this Python has no lzma module. Fix: another suffix, such as .zst") from None
        return b"", cast("Compressor", lzma.LZMACompressor(preset=3))
    if name == "zstd":
        import zstandard

        return b"", cast("Compressor", zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj())
    import lz4.frame

    compressor = lz4.frame.LZ4FrameCompressor(content_checksum=True)
    return compressor.begin(), cast("Compressor", compressor)


def member(name: str, data: bytes) -> bytes:
    """One complete member with this content."""
    start, new = new_compressor(name)
    return start + new.compress(data) + new.flush()


def members(file: BinaryIO, name: str) -> Iterator[tuple[bytes, bytes]]:
    """The members of a file that was written here: each as it is, and its content. One is in memory at a time.

    Raises InputError for corrupt or cut data.
    """
    new, errors = _decompressor(name)
    what = f"{shown(str(file.name), 300)}: the {name} data is corrupt"
    rest = b""
    while data := rest or file.read(_MEMBER_BYTES):
        current, raw, content = new(), [], []
        while True:
            try:
                content.append(current.decompress(data))
            except errors as error:
                raise InputError(f"{what} ({error})") from error
            if current.eof:
                rest = current.unused_data or b""
                raw.append(data[: len(data) - len(rest)])
                break
            raw.append(data)
            if not (data := file.read(_MEMBER_BYTES)):
                raise InputError(f"{what} (it ends too early)")
        yield b"".join(raw), b"".join(content)


def _decompressor(name: str) -> tuple[Callable[[], Decompressor], tuple[type[Exception], ...]]:
    """A factory of decompressors, one per member, and the exceptions they raise on corrupt data."""
    if name == "gzip":
        return cast("Callable[[], Decompressor]", lambda: zlib.decompressobj(31)), (zlib.error, MemoryError)
    if name == "bzip2":
        return cast("Callable[[], Decompressor]", bz2.BZ2Decompressor), (OSError, ValueError, MemoryError)
    if name == "xz":
        import lzma

        new = partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ)
        return cast("Callable[[], Decompressor]", new), (lzma.LZMAError, EOFError, MemoryError)
    if name == "zstd":
        import zstandard

        context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return cast("Callable[[], Decompressor]", context.decompressobj), (zstandard.ZstdError, MemoryError)
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor, (RuntimeError, EOFError, MemoryError)


class Decompressed(io.RawIOBase):
    """The content of a compressed stream. All readable bytes come first; then corrupt or cut data raises InputError."""

    def __init__(self, compressed: io.BufferedIOBase, name: str, path: str) -> None:
        self._compressed = compressed
        self._name = name
        self._path = path
        try:
            self._new, self._errors = _decompressor(name)
        except ImportError:
            what = f"is compressed with {name}, which this Python cannot read (it has no lzma module)"
            raise InputError(f"{path}: {what}. Fix: decompress it with xz -d") from None
        self._limit = (_OUTPUT_BYTES,) if name in _LIMITED else ()
        self._member: Decompressor | None = None
        self._ready = memoryview(b"")
        self._rest = b""
        self._given = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        """Bytes of content that were read."""
        return self._given

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            # With an output limit, a member may hold output that it returns without further input.
            pending = bool(self._limit) and self._member is not None and not self._member.needs_input
            data = b"" if pending else self._rest or self._compressed.read1(_INPUT_BYTES[self._name])
            if data:
                self._rest = b""
            elif not pending:
                if self._member is not None:
                    fix = "Fix: fetch or write the file again"
                    raise InputError(f"{self._path}: the {self._name} data ends too early. {fix}")
                return 0
            self._ready = memoryview(self._decompress(data))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self._given += count
        return count

    def _decompress(self, data: bytes) -> bytes:
        if self._member is None:
            data = data.lstrip(b"\0") if self._name in ("gzip", "xz") else data  # padding between members
            if not data:
                return b""
            self._member = self._new()
        try:
            plain = self._member.decompress(data, *self._limit)
        except self._errors as error:
            raise InputError(f"{self._path}: the {self._name} data is corrupt ({error})") from error
        if self._member.eof:
            self._rest = self._member.unused_data or b""
            self._member = None
        return plain

    def close(self) -> None:
        self._compressed.close()
        super().close()
