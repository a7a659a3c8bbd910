"""Where each document of a corpus stands, on disk: sorted hashes of ids, looked up in a mapped file.

One file: copied lines (see `addressing`), then for all documents in order of their hashes the hash, the file and the
offset, and the length of the line (20 bytes a document), then what it is an index of, as JSON, and a tail that finds
and seals that. Documents of one hash stand in the order of the corpus; ids are compared by the reader of the lines.
Sorting takes a fraction of the documents at a time, in temporary files beside the index.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from rerank_cli.storage.files import new_hash, update_hash

_TAIL = struct.Struct("<QQ16s8s")
_MAGIC = b"rrkindx1"  # with the version of all that is said above and in `about`
_ENTRY = np.dtype([("key", "<u8"), ("place", "<u8"), ("length", "<u4")])
_SECTIONS = ("key", "place", "length")
_FILE_BITS = 16
_OFFSET_BITS = np.uint64(64 - _FILE_BITS)
_OFFSET_MASK = np.uint64((1 << 64 - _FILE_BITS) - 1)
MOST_FILES = 1 << _FILE_BITS
_PAGE = 4096
_BLOCK = 1 << 16
_PARTS = 64


class Address(NamedTuple):
    """A line: number of its file, offset and length in it."""

    file: int
    offset: int
    length: int


class IndexWriter:
    """Takes the addresses of documents in the order of the corpus. `file` stands behind the lines that were copied."""

    def __init__(self, file: BinaryIO, folder: str | None, parts: int = _PARTS) -> None:
        self._file = file
        self._shift = np.uint64(64 - (parts.bit_length() - 1))
        self._parts = [tempfile.TemporaryFile(dir=folder) for _ in range(parts)]  # noqa: SIM115 - see close
        self._keys: list[str] = []
        self._places: list[int] = []
        self._lengths: list[int] = []
        self.count = 0
        self.repeated = 0

    def add(self, key: str, file: int, offset: int, length: int) -> None:
        self._keys.append(key)
        self._places.append(file << int(_OFFSET_BITS) | offset)
        self._lengths.append(length)
        if len(self._keys) == _BLOCK:
            self._put_away()

    def finish(self, about: dict[str, Any]) -> None:
        """Sort, write, and seal with what the index is `about`."""
        self._put_away()
        begin = -(-self._file.tell() // _PAGE) * _PAGE
        digests = self._write_sections(begin)
        head = {"begin": begin, "count": self.count, "repeated": self.repeated, "digests": digests}
        described = orjson.dumps({**head, "about": about})
        at = self._file.seek(0, os.SEEK_END)
        self._file.write(described)
        self._file.write(_TAIL.pack(at, len(described), _digest(described), _MAGIC))

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _put_away(self) -> None:
        """Entries to the part that their hash belongs to, in their order."""
        if not self._keys:
            return
        entries = np.empty(len(self._keys), dtype=_ENTRY)
        entries["key"], entries["place"], entries["length"] = hashes_of(self._keys), self._places, self._lengths
        self._keys, self._places, self._lengths = [], [], []
        self.count += len(entries)
        if len(self._parts) == 1:
            self._parts[0].write(entries.tobytes())
            return
        part_of = entries["key"] >> self._shift
        order = np.argsort(part_of, kind="stable")
        ends = np.searchsorted(part_of[order], np.arange(len(self._parts) + 1))
        entries = entries[order]
        for part, first, end in zip(self._parts, ends[:-1], ends[1:], strict=True):
            part.write(entries[first:end].tobytes())

    def _write_sections(self, begin: int) -> list[str]:
        hashes = {name: new_hash() for name in _SECTIONS}
        done = 0
        for part in self._parts:
            part.seek(0)
            entries = np.frombuffer(part.read(), dtype=_ENTRY)
            entries = entries[np.argsort(entries["key"], kind="stable")]
            self.repeated += int((entries["key"][1:] == entries["key"][:-1]).sum())
            for name, at in zip(_SECTIONS, _begins(begin, self.count), strict=True):
                data = entries[name].tobytes()
                hashes[name].update(data)
                self._file.seek(at + done * _ENTRY[name].itemsize)
                self._file.write(data)
            done += len(entries)
        return [hash.hexdigest() for hash in hashes.values()]


class CorpusIndex:
    """An index to look ids up in."""

    def __init__(self, file: BinaryIO, head: dict[str, Any]) -> None:
        self.about: dict[str, Any] = head["about"]
        self.count: int = head["count"]
        self.repeated: int = head["repeated"]
        arrays = [
            np.asarray(
                np.memmap(file, _ENTRY[name], "r", at, (self.count,)) if self.count else np.empty(0, _ENTRY[name])
            )
            for name, at in zip(_SECTIONS, _begins(head["begin"], self.count), strict=True)
        ]
        self._keys: Hashes = arrays[0]
        self._places: npt.NDArray[np.uint64] = arrays[1]
        self._lengths: npt.NDArray[np.uint32] = arrays[2]

    def find(self, keys: list[str]) -> list[tuple[int, Address]]:
        """Lines that may be the documents' of these ids, each with the number of its id, in the order of the corpus."""
        wanted = hashes_of(keys)
        numbers = np.argsort(wanted)
        first = np.searchsorted(self._keys, wanted[numbers], side="left")
        counts = np.searchsorted(self._keys, wanted[numbers], side="right") - first
        # Entries of all ids one after the other: from the first of each on, as many as it has.
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.repeat(first, counts) + steps
        places = self._places[entries]
        order = np.argsort(places)
        places, lengths = places[order], self._lengths[entries[order]]
        columns = (places >> _OFFSET_BITS, places & _OFFSET_MASK, lengths)
        addresses = map(Address, *(column.tolist() for column in columns))
        return list(zip(np.repeat(numbers, counts)[order].tolist(), addresses, strict=True))

    def sizes(self, keys: list[str]) -> list[int]:
        """For each id the length of the first line that may be its document's, 0 where there is none."""
        wanted = hashes_of(keys)
        if not self.count:
            return [0] * len(keys)
        first = np.minimum(np.searchsorted(self._keys, wanted), self.count - 1)
        sizes: list[int] = np.where(self._keys[first] == wanted, self._lengths[first], 0).tolist()
        return sizes


class Damaged(Exception):
    """The file is no whole index, and why."""


def open_index(file: BinaryIO) -> CorpusIndex:
    """The index in a file, checked byte for byte. Raises Damaged."""
    size = file.seek(0, os.SEEK_END)
    if size < _TAIL.size:
        raise Damaged("it is too short")
    file.seek(size - _TAIL.size)
    at, length, digest, magic = _TAIL.unpack(file.read(_TAIL.size))
    if magic != _MAGIC:
        raise Damaged("it does not end like an index")
    if at + length + _TAIL.size != size:
        raise Damaged("its size is not what it says")
    file.seek(at)
    described = file.read(length)
    if _digest(described) != digest:
        raise Damaged("its description was changed")
    head = orjson.loads(described)
    for name, begin, expected in zip(_SECTIONS, _begins(head["begin"], head["count"]), head["digests"], strict=True):
        file.seek(begin)
        hash = new_hash()
        update_hash(hash, file, head["count"] * _ENTRY[name].itemsize)
        if hash.hexdigest() != expected:
            raise Damaged("its entries were changed")
    return CorpusIndex(file, head)


def _begins(begin: int, count: int) -> Iterator[int]:
    """Where each section begins."""
    for name in _SECTIONS:
        yield begin
        begin += count * _ENTRY[name].itemsize


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


Hashes = npt.NDArray[np.uint64]


def hashes_of(keys: Sequence[str]) -> Hashes:
    """One number a key."""
    digests = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys]
    return np.frombuffer(b"".join(digests), dtype="<u8")
