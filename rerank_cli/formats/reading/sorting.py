"""Sorts rows by query: keys in order of first appearance, rows of one key in input order.

External merge sort: blocks that do not fit in memory go to unnamed temporary files ($TMPDIR). The same rows always give
the same sequence, so that a row is identified by its number in it.
"""

from __future__ import annotations

import heapq
import pickle
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import BinaryIO, cast

from rerank_cli.formats.extent import Extent, FileExtent, Units
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection
from rerank_cli.storage.files import writing

_BLOCK_BYTES = 64 << 20
_FAN_IN = 64
_BUFFER = 256 << 10
_HEAD = struct.Struct("<QI")
_FIRST_CODE = itemgetter(0)

KeyOf = Callable[[Row], object]
Coded = tuple[int, bytes]


class SortedRows:
    """The sorted rows from the row `begin` on. The place of a row is its number, in the last input, which is `file`."""

    def __init__(self, file: int) -> None:
        self.begin = 0
        self._file = file
        self._total = 0
        self._done = 0

    def extent(self, size: int) -> Extent:
        """The extent of the sorted rows, whose files have `size` bytes: known once the first row was yielded."""
        return Extent([FileExtent(self._file, size, Units(self._total, rows=True))])

    def share_of(self, taken: int) -> int:
        """The part of `taken` bytes that the rows yielded so far make up: all input is read before the first row."""
        return taken * min(self._done, self._total) // self._total if self._total else 0

    def rows(self, rows: Iterable[Row | Rejection], key_of: KeyOf) -> Iterator[Row | Rejection]:
        """Read all rows, then yield them sorted. A row without a key is sorted by its own line."""
        self._total = self._done = 0
        found = _merged(self._coded(rows, key_of))
        self._done = self.begin
        for number, (_, data) in enumerate(islice(found, self.begin, None), self.begin):
            self._done = number + 1
            path, line, rest = pickle.loads(data)
            position = Position(path, line, Place(self._file, number))
            yield Rejection(position, *rest) if isinstance(rest, tuple) else Row(position, rest)

    def _coded(self, rows: Iterable[Row | Rejection], key_of: KeyOf) -> Iterator[Coded]:
        """Each row, pickled, with its sort code: file and line where its key was first."""
        seen = QueryLog()
        for row in rows:
            self._total += 1
            place = row.position.place or Place()
            key = key_of(row) if isinstance(row, Row) else None
            file, line = (place.file, place.rows) if key is None else seen.first(key, place)
            rest = (row.code, row.message, row.id, row.raw) if isinstance(row, Rejection) else row.value
            data = (row.position.path, row.position.line, rest)
            yield file << 48 | line, pickle.dumps(data, pickle.HIGHEST_PROTOCOL)


def _merged(items: Iterator[Coded]) -> Iterator[Coded]:
    files: list[BinaryIO] = []
    block: list[Coded] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item[1])
        if size >= _BLOCK_BYTES:
            block.sort(key=_FIRST_CODE)
            files.append(_spilled(block))
            block, size = [], 0
            if len(files) == _FAN_IN:
                files = [_spilled(_merge(files))]
    block.sort(key=_FIRST_CODE)
    yield from _merge(files, block)


def _merge(files: list[BinaryIO], block: Iterable[Coded] = ()) -> Iterator[Coded]:
    """Sorted blocks, in the order in which they were made: rows with equal codes keep their order."""
    try:
        yield from heapq.merge(*map(_read, files), block, key=_FIRST_CODE)
    finally:
        for file in files:
            file.close()


def _spilled(items: Iterable[Coded]) -> BinaryIO:
    with writing(tempfile.gettempdir()):
        file = cast("BinaryIO", tempfile.TemporaryFile(buffering=_BUFFER))  # noqa: SIM115 - until it is merged
        for code, data in items:
            file.write(_HEAD.pack(code, len(data)))
            file.write(data)
        file.seek(0)
    return file


def _read(file: BinaryIO) -> Iterator[Coded]:
    while head := file.read(_HEAD.size):
        code, length = _HEAD.unpack(head)
        yield code, file.read(length)
