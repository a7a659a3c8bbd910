"""Joins the parts of an output into one Parquet file, streaming.

The bytes depend only on the rows, not on how the parts divide them: rows are regrouped into blocks of a fixed number,
and a row group ends with the block that fills it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.storage.opening import open_file

COMPRESSION = "zstd"
_BLOCK_ROWS = 256
_GROUP_ROWS = 100_000
_GROUP_BYTES = 64 << 20


def join(parts: Sequence[str], schema: ArrowSchema, output: Any) -> None:
    """Write the rows of all parts, in order, to an open file."""
    with pq.ParquetWriter(output, schema, compression=COMPRESSION) as writer:
        for blocks in _groups(_blocks(parts)):
            table = pa.Table.from_batches(blocks, schema=schema).combine_chunks()
            writer.write_table(table, row_group_size=table.num_rows)


def _groups(blocks: Iterator[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    rows = size = 0
    for block in blocks:
        group.append(block)
        rows += block.num_rows
        size += sum(_content_bytes(column) for column in block.columns)
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _blocks(parts: Sequence[str]) -> Iterator[Any]:
    """Batches of exactly `_BLOCK_ROWS` rows; the last one may be smaller."""
    held: list[Any] = []
    missing = _BLOCK_ROWS
    for batch in _batches(parts):
        while batch.num_rows >= missing:
            yield pa.concat_batches([*held, batch.slice(0, missing)])
            batch = batch.slice(missing)
            held, missing = [], _BLOCK_ROWS
        if batch.num_rows:
            held.append(batch)
            missing -= batch.num_rows
    if held:
        yield pa.concat_batches(held)


def _batches(parts: Sequence[str]) -> Iterator[Any]:
    for part in parts:
        with open_file(part) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            for batch in file.iter_batches(_BLOCK_ROWS):
                yield batch.replace_schema_metadata(None)


def _content_bytes(array: Any) -> int:
    """The size of an array's values. Unlike `nbytes` without null masks, which depend on how the array was built."""
    kind = array.type
    if pa.types.is_struct(kind):
        return sum(_content_bytes(child) for child in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return 4 * len(array) + _content_bytes(array.flatten())
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return int(pc.sum(pc.binary_length(array)).as_py() or 0) + 4 * len(array)
    return 8 * len(array)
