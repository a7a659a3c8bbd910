"""Compressed streams: recognised by their first bytes when read, chosen by the file's suffix when written.

Reading takes any number of members (frames) one after the other and says so when one is cut off. A written member is
complete by itself, so that a file may be cut at the end of any of them.
"""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable
from typing import Any, Protocol, cast

from rerank_cli.errors import InputError

# What is fed at a time must not swell beyond bounds: at most 1,000-fold for gzip; a block of zstd, 128 KiB, takes 4
# bytes at least. bzip2 and lz4 are told how much to give back at a time.
_FEED = {"gzip": 1 << 15, "zstd": 1 << 10, "bzip2": 1 << 16, "lz4": 1 << 16}
_TAKE = 1 << 20
_ZSTD_WINDOW = 1 << 31


class Decompressor(Protocol):
    """One member: the interface that zlib, bz2, lz4 and zstandard share; `needs_input` is had by bz2 and lz4 alone."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, /, *limit: int) -> bytes: ...


class Compressor(Protocol):
    """One member being written; `flush` ends it."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def recognise(head: bytes) -> str | None:
    """The name of the compression a file begins with, given its first bytes."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh"):
        return "bzip2"
    if head.startswith(b"\x04\x22\x4d\x18"):
        return "lz4"
    # Parallel zstd writers begin with a skippable frame: 0x184D2A50 to 5F, little-endian.
    skippable = len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
    return "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") or skippable else None


def compression_of(path: str) -> str | None:
    """The name of the compression that an output's suffix asks for."""
    for suffix, name in ((".gz", "gzip"), (".zst", "zstd"), (".bz2", "bzip2"), (".lz4", "lz4")):
        if path.endswith(suffix):
            return name
    return None


def new_compressor(name: str) -> tuple[bytes, Compressor]:
    """A member's first bytes and what compresses the rest. The same input gives the same bytes."""
    if name == "gzip":
        return b"", cast("Compressor", zlib.compressobj(4, zlib.DEFLATED, 31))
    if name == "bzip2":
        return b"", cast("Compressor", bz2.BZ2Compressor())
    if name == "zstd":
        import zstandard

        return b"", cast("Compressor", zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj())
    import lz4.frame

    compressor = lz4.frame.LZ4FrameCompressor(content_checksum=True)
    return compressor.begin(), cast("Compressor", compressor)


def _decompressor(name: str) -> tuple[Callable[[], Decompressor], tuple[type[Exception], ...]]:
    """What makes a member's decompressor, and what it raises on bytes it cannot read."""
    if name == "gzip":
        return cast("Callable[[], Decompressor]", lambda: zlib.decompressobj(31)), (zlib.error, MemoryError)
    if name == "bzip2":
        return cast("Callable[[], Decompressor]", bz2.BZ2Decompressor), (OSError, ValueError, MemoryError)
    if name == "zstd":
        import zstandard

        context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return cast("Callable[[], Decompressor]", context.decompressobj), (zstandard.ZstdError, MemoryError)
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor, (RuntimeError, EOFError, MemoryError)


class Decompressed(io.RawIOBase):
    """The contents of a compressed stream. A corrupt or cut stream raises InputError once all before it is read."""

    def __init__(self, compressed: io.BufferedIOBase, name: str, path: str) -> None:
        self._compressed = compressed
        self._name = name
        self._path = path
        self._new, self._errors = _decompressor(name)
        self._limit = (_TAKE,) if name in ("bzip2", "lz4") else ()
        self._member: Decompressor | None = None
        self._ready = memoryview(b"")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            fed = b"" if self._has_more() else self._rest or self._compressed.read1(_FEED[self._name])
            if fed:
                self._rest = b""
            elif not self._has_more():
                self._check_whole()
                return 0
            self._ready = memoryview(self._feed(fed))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _has_more(self) -> bool:
        """Does the member hold output that it has not given back yet?"""
        return bool(self._limit) and self._member is not None and not self._member.needs_input

    def _feed(self, data: bytes) -> bytes:
        if self._member is None:
            data = data.lstrip(b"\0") if self._name == "gzip" else data
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

    def _check_whole(self) -> None:
        if self._member is not None:
            raise InputError(f"{self._path}: the {self._name} data ends too early. Fix: fetch or write the file again")

    def close(self) -> None:
        self._compressed.close()
        super().close()
