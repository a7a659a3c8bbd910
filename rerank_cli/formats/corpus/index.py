"""The on-disk index of a corpus: sorted hashes of ids with the addresses of their lines, searched in a mapped file.

Layout: copied lines (see `addressing`); three arrays sorted by hash, of hashes, places (file and offset) and line
lengths, 20 bytes per document; a description in JSON, with hashes of the arrays; a tail with the position and hash of
the description. Documents with equal hashes are in corpus order: the reader of the lines compares ids. Sorting holds a
part of the documents in memory at a time and needs temporary files beside the index.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from rerank_cli.storage.files import new_hash, update_hash

_TAIL = struct.Struct("<QQ16s8s")  # position, length and hash of the description, magic
_MAGIC = b"rrkindx1"  # with the version of the layout and of the description
_ENTRY = np.dtype([("key", "<u8"), ("place", "<u8"), ("length", "<u4")])
_SECTIONS = ("key", "place", "length")
_FILE_BITS = 16
_OFFSET_BITS = np.uint64(64 - _FILE_BITS)
_OFFSET_MASK = np.uint64((1 << 64 - _FILE_BITS) - 1)
MOST_FILES = 1 << _FILE_BITS
PARTS = 64
_PAGE = 4096
_BLOCK = 1 << 16

Hashes = npt.NDArray[np.uint64]


class Address(NamedTuple):
    """A line: number of its file, offset and length in bytes."""

    file: int
    offset: int
    length: int


class IndexWriter:
    """Takes document addresses in corpus order and sorts them in `parts` (a power of 2) parts, by the first hash bits.

    `file` is positioned after the copied lines. Temporary files are made in `folder`.
    """

    def __init__(self, file: BinaryIO, folder: str | None, parts: int) -> None:
        self._file = file
        self._shift = np.uint64(64 - (parts.bit_length() - 1))  # in NumPy, x >> 64 is 0
        self._parts = [tempfile.TemporaryFile(dir=folder) for _ in range(parts)]  # noqa: SIM115 - see close
        self._keys: list[str] = []
        self._places: list[int] = []
        self._lengths: list[int] = []
        self.count = 0

    def add(self, key: str, file: int, offset: int, length: int) -> None:
        self._keys.append(key)
        self._places.append(file << int(_OFFSET_BITS) | offset)
        self._lengths.append(length)
        if len(self._keys) == _BLOCK:
            self._flush()

    def finish(self, about: dict[str, Any]) -> None:
        """Sort, write, and seal; `about` becomes a part of the description."""
        self._flush()
        begin = -(-self._file.tell() // _PAGE) * _PAGE
        hashes = {name: new_hash() for name in _SECTIONS}
        done = repeated = 0
        for part in self._parts:
            part.seek(0)
            entries = np.frombuffer(part.read(), dtype=_ENTRY)
            entries = entries[np.argsort(entries["key"], kind="stable")]
            repeated += int((entries["key"][1:] == entries["key"][:-1]).sum())
            for name, at in zip(_SECTIONS, _begins(begin, self.count), strict=True):
                data = entries[name].tobytes()
                hashes[name].update(data)
                self._file.seek(at + done * _ENTRY[name].itemsize)
                self._file.write(data)
            done += len(entries)
        digests = [hash.hexdigest() for hash in hashes.values()]
        head = {"begin": begin, "count": self.count, "repeated": repeated, "digests": digests}
        described = orjson.dumps({**head, "about": about})
        at = self._file.seek(0, os.SEEK_END)
        self._file.write(described)
        self._file.write(_TAIL.pack(at, len(described), new_hash(described).digest(), _MAGIC))

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _flush(self) -> None:
        """Append the entries in memory to the parts of their hashes, in corpus order."""
        if not self._keys:
            return
        entries = np.empty(len(self._keys), dtype=_ENTRY)
        entries["key"], entries["place"], entries["length"] = hashes_of(self._keys), self._places, self._lengths
        self._keys, self._places, self._lengths = [], [], []
        self.count += len(entries)
        part_of = entries["key"] >> self._shift
        order = np.argsort(part_of, kind="stable")
        ends = np.searchsorted(part_of[order], np.arange(len(self._parts) + 1))
        entries = entries[order]
        for part, first, end in zip(self._parts, ends[:-1], ends[1:], strict=True):
            part.write(entries[first:end].tobytes())


class InvalidIndex(Exception):
    """The file is not a complete index, or one of another corpus. The message follows the path of the file."""


class CorpusIndex:
    """The index in a file, at least one document, all hashes checked. Raises InvalidIndex."""

    def __init__(self, file: BinaryIO) -> None:
        size = file.seek(0, os.SEEK_END)
        if size < _TAIL.size:
            raise InvalidIndex("is damaged (too short)")
        file.seek(size - _TAIL.size)
        at, length, digest, magic = _TAIL.unpack(file.read(_TAIL.size))
        if magic != _MAGIC:
            raise InvalidIndex("is damaged (no tail)")
        if at + length + _TAIL.size != size:
            raise InvalidIndex("is damaged (its size differs from the one in its tail)")
        file.seek(at)
        described = file.read(length)
        if new_hash(described).digest() != digest:
            raise InvalidIndex("is damaged (its description has another hash)")
        head = orjson.loads(described)
        self.about: dict[str, Any] = head["about"]
        self.count: int = head["count"]
        self.repeated: int = head["repeated"]
        begins = _begins(head["begin"], self.count)
        for name, begin, expected in zip(_SECTIONS, begins, head["digests"], strict=True):
            file.seek(begin)
            hash = new_hash()
            update_hash(hash, file, self.count * _ENTRY[name].itemsize)
            if hash.hexdigest() != expected:
                raise InvalidIndex("is damaged (its entries have another hash)")
        keys, places, lengths = (
            np.asarray(np.memmap(file, _ENTRY[name], "r", begin, (self.count,)))
            for name, begin in zip(_SECTIONS, begins, strict=True)
        )
        self._keys: Hashes = keys
        self._places: npt.NDArray[np.uint64] = places
        self._lengths: npt.NDArray[np.uint32] = lengths

    def addresses(self) -> Iterator[Address]:
        """The addresses of all lines in corpus order."""
        order = np.argsort(self._places)
        for begin in range(0, self.count, _BLOCK):
            yield from self._addresses(order[begin : begin + _BLOCK])

    def find(self, keys: Sequence[str]) -> list[tuple[int, Address]]:
        """Addresses of lines with the hashes of these ids, each with the number of its id, in corpus order."""
        wanted = hashes_of(keys)
        numbers = np.argsort(wanted)
        first = np.searchsorted(self._keys, wanted[numbers], side="left")
        counts = np.searchsorted(self._keys, wanted[numbers], side="right") - first
        # The entries of all ids in one array: counts[i] consecutive entries from first[i] on.
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.repeat(first, counts) + steps
        order = np.argsort(self._places[entries])
        return list(zip(np.repeat(numbers, counts)[order].tolist(), self._addresses(entries[order]), strict=True))

    def sizes(self, keys: Sequence[str]) -> list[int]:
        """For each id, the length in bytes of the first line with its hash, 0 if there is none."""
        wanted = hashes_of(keys)
        first = np.minimum(np.searchsorted(self._keys, wanted), self.count - 1)
        sizes: list[int] = np.where(self._keys[first] == wanted, self._lengths[first], 0).tolist()
        return sizes

    def _addresses(self, entries: npt.NDArray[np.intp]) -> Iterator[Address]:
        places = self._places[entries]
        columns = (places >> _OFFSET_BITS, places & _OFFSET_MASK, self._lengths[entries])
        return map(Address, *(column.tolist() for column in columns))


def _begins(begin: int, count: int) -> list[int]:
    """The offset of each section, of which the first is at `begin`."""
    return list(accumulate((count * _ENTRY[name].itemsize for name in _SECTIONS[:-1]), initial=begin))


def hashes_of(keys: Sequence[str]) -> Hashes:
    """The 64-bit hash of each id."""
    digests = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys]
    return np.frombuffer(b"".join(digests), dtype="<u8")
