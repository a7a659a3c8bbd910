"""Places in the inputs where a sample can start without reading everything before it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from rerank_cli.choices import InputFormat
from rerank_cli.formats.contract import Source
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.inputs import format_of
from rerank_cli.records import Place, Shape
from rerank_cli.storage.opening import arrow_file, open_bytes


def starts(source: Source, options: InputOptions, count: int) -> Sequence[tuple[Place, int]]:
    """`count` places spread evenly over the inputs, each with the bytes on disk before it.

    Only the beginning if other places are expensive to find: streams, compressed files, formats other than JSON lines
    and Parquet, and rows of pairs, whose groups would be split. Lines before a place are not counted, so that line
    numbers read from it start at 1.
    """
    beginning = [(Place(), 0)]
    sizes = [stamp.size for stamp in source.stamps if stamp]
    if source.total_bytes is None or source.shape is Shape.PAIRS or len(sizes) != len(options.paths):
        return beginning
    ends = list(accumulate(sizes))
    found: list[tuple[Place, int]] = []
    for number in range(count):
        at = source.total_bytes * number // count
        file = min(bisect_right(ends, at), len(sizes) - 1)
        before = ends[file] - sizes[file]
        near = _near(options.paths[file], file, at - before, sizes[file])
        if near is None:
            return beginning
        found.append((near[0], before + near[1]))
    return list(dict.fromkeys(found))


def _near(path: str, file: int, offset: int, size: int) -> tuple[Place, int] | None:
    """The first record that begins after `offset`, and the bytes before it; None if it cannot be found."""
    opened = open_bytes(path)
    try:
        format = format_of(opened)
        if opened.compression or format not in (InputFormat.JSONL, InputFormat.PARQUET):
            return None
        if format is InputFormat.PARQUET:
            import pyarrow.parquet as pq

            opened_again, _ = arrow_file(path)
            with pq.ParquetFile(opened_again) as parquet:
                rows = parquet.metadata.num_rows
            row = rows * offset // size
            return Place(file, row), size * row // max(1, rows)
        if offset:
            opened = opened.at(offset)
            offset += len(opened.content.readline())
        return Place(file, 0, offset), offset
    finally:
        opened.content.close()
