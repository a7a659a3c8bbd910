"""Where in the inputs a sample may be taken without reading all before it."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_cli.formats.contract import Source
from rerank_cli.formats.options import InputOptions
from rerank_cli.records import Place, Shape
from rerank_cli.storage.opening import PARQUET_MAGIC, open_bytes


def starts(source: Source, options: InputOptions, count: int) -> Sequence[tuple[Place, int]]:
    """`count` places spread evenly over the inputs, each with the bytes on disk before it.

    The beginning alone where no other is cheap to find: streams, compressed files, and rows of pairs, whose groups
    would be torn. Lines are not counted on the way, so that positions read from such a place count from it.
    """
    beginning = [(Place(), 0)]
    sizes = [stamp.size for stamp in source.stamps if stamp]
    if source.total_bytes is None or source.shape is Shape.PAIRS or len(sizes) != len(options.paths):
        return beginning
    found: list[tuple[Place, int]] = []
    for number in range(count):
        file, offset = _locate(source.total_bytes * number // count, sizes)
        near = _near(options.paths[file], file, offset, sizes[file])
        if near is None:
            return beginning
        place, before = near
        found.append((place, sum(sizes[:file]) + before))
    return list(dict.fromkeys(found))


def _locate(offset: int, sizes: Sequence[int]) -> tuple[int, int]:
    """The file and the place in it of a byte of all files together."""
    file = 0
    while file + 1 < len(sizes) and offset >= sizes[file]:
        offset -= sizes[file]
        file += 1
    return file, offset


def _near(path: str, file: int, offset: int, size: int) -> tuple[Place, int] | None:
    """The first record that begins behind `offset`, and the bytes before it; None in a compressed file."""
    opened = open_bytes(path)
    try:
        if opened.compression:
            return None
        if opened.content.peek(len(PARQUET_MAGIC)).startswith(PARQUET_MAGIC):
            return _near_row(path, file, offset, size)
        if offset:
            opened = opened.at(offset)
            offset += len(opened.content.readline())
        return Place(file, 0, offset), offset
    finally:
        opened.content.close()


def _near_row(path: str, file: int, offset: int, size: int) -> tuple[Place, int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as parquet:
        rows = parquet.metadata.num_rows
    row = rows * offset // size
    return Place(file, row), size * row // max(1, rows)
