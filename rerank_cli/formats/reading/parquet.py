"""Rows of Parquet files. The shape and the roles of columns follow from the schema, before any row is read.

A missing column or a wrong type is an InputError that names the columns; single bad values are left to the shapes.
Memory is bounded by a batch of rows, not by a row group.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.extent import Reached, Units
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection
from rerank_cli.storage.opening import BLOCK, Opened, arrow_file, is_file

_NESTED_BATCH = 32
_FLAT_BATCH = 1024


class ParquetInput:
    """An open Parquet file. A stream or a compressed file is first copied to a temporary file. Raises InputError."""

    def __init__(self, opened: Opened) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = opened.name
        self._opened = opened
        self._spooled = spooled(opened)
        try:
            file, self._bytes = (self._spooled, opened.counted.taken) if self._spooled else arrow_file(opened.path)
            self._file = pq.ParquetFile(file, buffer_size=BLOCK, pre_buffer=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.name}: not a complete Parquet file ({shown(str(error), 200)})") from error
        self._rows_done = 0
        self.schema: Any = self._file.schema_arrow

    def units(self) -> Units:
        """The number of rows, which the file states."""
        return Units(self._file.metadata.num_rows, rows=True, reach=lambda row: Reached(row, 0, row))

    def rows(self, start: Place) -> Iterator[Row | Rejection]:
        """The rows from `start` on, without reading earlier row groups; a row unfit for Python is rejected alone."""
        import pyarrow as pa

        self._rows_done = start.rows
        try:
            metadata, group, skip = self._file.metadata, 0, start.rows
            while group < metadata.num_row_groups and skip >= metadata.row_group(group).num_rows:
                skip -= metadata.row_group(group).num_rows
                group += 1
            groups = list(range(group, metadata.num_row_groups))
            for batch in self._file.iter_batches(batch_rows(self.schema), groups):
                for value in values_of(batch.slice(skip)) if skip < batch.num_rows else ():
                    position = Position(self.name, self._rows_done + 1, Place(start.file, self._rows_done))
                    self._rows_done += 1
                    yield Row(position, value) if isinstance(value, dict) else Rejection(position, *value)
                skip = max(0, skip - batch.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: the Parquet data is corrupt ({shown(str(error), 200)})") from error

    def taken(self) -> int:
        """Bytes on disk, estimated from the share of rows read: Parquet is not read front to back."""
        total = self._file.metadata.num_rows
        return self._bytes * self._rows_done // total if total else self._bytes

    def close(self) -> None:
        self._file.close(force=True)
        if self._spooled:
            self._spooled.close()
        self._opened.content.close()


def spooled(opened: Opened) -> BinaryIO | None:
    """A temporary copy of a stream or of compressed data, None for a file that can be read at any offset."""
    if not opened.compression and is_file(opened.path):
        return None
    file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - open as long as the input
    shutil.copyfileobj(opened.content, file, BLOCK)
    file.seek(0)
    return file


def batch_rows(schema: ArrowSchema) -> int:
    """How many rows are converted to Python objects at a time."""
    import pyarrow as pa

    return _NESTED_BATCH if any(pa.types.is_nested(field.type) for field in schema) else _FLAT_BATCH


def values_of(batch: Any) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Each row as an object, or the code and the message for a row that cannot be converted."""
    import pyarrow as pa

    for index, field in enumerate(batch.schema):
        # Python's own types have no nanoseconds. Output writes the integers back into a column of the original type.
        if getattr(field.type, "unit", None) == "ns":
            plain = batch.column(index).cast(pa.int64())
            batch = batch.set_column(index, pa.field(field.name, pa.int64()), plain)
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError, LookupError):
        pass
    for index in range(len(batch)):
        try:
            yield dict(batch.slice(index, 1).to_pylist()[0])
        except UnicodeDecodeError as error:
            yield "bad_utf8", f"the row holds text that is not valid UTF-8 ({error.reason})"
        except (ValueError, OverflowError, LookupError) as error:
            yield "bad_value", f"the row holds a value that cannot be read ({shown(str(error), 120)})"
