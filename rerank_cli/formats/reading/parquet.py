"""Parquet to rows, a few at a time: what a file holds is told by its columns, before any row is read.

A column that is missing or of a wrong type is an InputError that names the columns found; single bad values are left to
the shapes. Memory is bounded by a batch of rows, not by a row group.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rerank_cli.display import names, shown
from rerank_cli.errors import InputError
from rerank_cli.formats.reading.file_rows import Input
from rerank_cli.formats.reading.parquet_columns import annotated, example
from rerank_cli.formats.shapes.detection import detect
from rerank_cli.formats.shapes.fields import Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection, Shape
from rerank_cli.storage.opening import BLOCK, Opened, is_file, open_bytes

_NESTED_BATCH = 32
_FLAT_BATCH = 1024


class ParquetInput:
    """An open Parquet file. One from a stream or a compressed file is first copied to a temporary file."""

    def __init__(self, opened: Opened) -> None:
        self.name = opened.name
        self._opened = opened
        self._spooled = None if is_file(opened.path) and not opened.compression else _spool(opened)
        self._bytes = opened.counted.taken if self._spooled else Path(opened.path).stat().st_size
        self._file = _open(self._spooled or opened.path, opened.name)
        self._rows_done = 0
        self.schema: Any = self._file.schema_arrow

    def shape(self, fields: Names) -> Shape:
        """The shape that its columns show. Raises InputError if they show none."""
        found = detect({field.name: example(field.type) for field in self.schema}, fields)
        if found is None:
            got = f"got {names(self.schema.names)}; expected a query with its documents, or with a text"
            fix = "Fix: --query-field with --documents-field or --text-field"
            raise InputError(f"{self.name}: no shape fits its columns ({got}). {fix}")
        return found

    def rows(self, start: Place) -> Iterator[Row | Rejection]:
        """One row after the other; a row that Python cannot hold is rejected by itself."""
        import pyarrow as pa

        self._rows_done = start.rows
        try:
            for batch in self._batches(start.rows):
                for value in _values(_plain(batch)):
                    position = Position(self.name, self._rows_done + 1, Place(start.file, self._rows_done))
                    self._rows_done += 1
                    yield Row(position, value) if isinstance(value, dict) else Rejection(position, *value)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: the Parquet data is corrupt ({shown(str(error), 200)})") from error

    def _batches(self, first: int) -> Iterator[Any]:
        """Batches of rows from the row `first` on; row groups before it are not read."""
        import pyarrow as pa

        nested = any(pa.types.is_nested(field.type) for field in self.schema)
        metadata = self._file.metadata
        group = 0
        while group < metadata.num_row_groups and first >= metadata.row_group(group).num_rows:
            first -= metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        for batch in self._file.iter_batches(_NESTED_BATCH if nested else _FLAT_BATCH, groups):
            if first < batch.num_rows:
                yield batch.slice(first)
            first = max(0, first - batch.num_rows)

    def taken(self) -> int:
        """Bytes on disk, by the share of rows read: Parquet is not read from front to back."""
        total = self._file.metadata.num_rows
        return self._bytes * self._rows_done // total if total else self._bytes

    def close(self) -> None:
        self._file.close(force=True)
        if self._spooled:
            self._spooled.close()
        self._opened.content.close()


def open_parquet(opened: Opened, shape: Shape | None, fields: Names, start: Place) -> Input:
    """Open a file that begins like Parquet, to be read from `start` on."""
    source = ParquetInput(opened)
    try:
        columns = annotated(source.schema, shape or source.shape(fields), fields, source.name)
    except BaseException:
        source.close()
        raise
    return Input("Parquet", source.rows(start), source.taken, source.close, columns)


def check_same_columns(paths: Sequence[str]) -> None:
    """Raise InputError if a file's columns differ from those of the first."""
    first = None
    for path in paths:
        source = ParquetInput(open_bytes(path))
        schema = source.schema.remove_metadata()
        source.close()
        if first is not None and schema != first:
            expected = f"got {names(schema.names)}; expected those of {shown(paths[0], 200)}: {names(first.names)}"
            raise InputError(f"{shown(path, 200)}: its columns or their types differ ({expected})")
        first = schema if first is None else first


def _open(source: str | BinaryIO, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pa.OSFile(os.fsencode(source)) if isinstance(source, str) else source
        return pq.ParquetFile(file, buffer_size=BLOCK, pre_buffer=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: is not a whole Parquet file ({shown(str(error), 200)})") from error


def _spool(opened: Opened) -> BinaryIO:
    spooled = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the input
    while block := opened.content.read(BLOCK):
        spooled.write(block)
    spooled.seek(0)
    return spooled


def _plain(batch: Any) -> Any:
    """Nanoseconds as integers: Python's own types do not reach that far, and the integers go back into the column."""
    import pyarrow as pa

    for index, field in enumerate(batch.schema):
        if getattr(field.type, "unit", None) == "ns":
            plain = batch.column(index).cast(pa.int64())
            batch = batch.set_column(index, pa.field(field.name, pa.int64()), plain)
    return batch


def _values(batch: Any) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Each row as an object, or the code and the reason of one that cannot be had."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError, LookupError):
        for index in range(len(batch)):
            yield _value(batch.slice(index, 1))


def _value(batch: Any) -> dict[str, Any] | tuple[str, str]:
    try:
        return dict(batch.to_pylist()[0])
    except UnicodeDecodeError as error:
        return "bad_utf8", f"the row holds text that is not valid UTF-8 ({error.reason})"
    except (ValueError, OverflowError, LookupError) as error:
        return "bad_value", f"the row holds a value that cannot be read ({shown(str(error), 120)})"
