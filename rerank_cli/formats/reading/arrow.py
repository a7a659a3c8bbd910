"""Rows of Arrow IPC: streams, as `datasets` saves them, and files, which are Feather version 2.

One record batch is in memory at a time. A place is the number of a row; batches before it are read and dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.extent import Units
from rerank_cli.formats.reading.parquet import batch_rows, spooled, values_of
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection
from rerank_cli.storage.opening import BLOCK, Opened, arrow_file

_FILE = b"ARROW1"
# Before every message of a stream, since Arrow 0.15.
_STREAM = b"\xff\xff\xff\xff"


def _names(fields: Iterable[Any]) -> list[Any]:
    """The names of fields and of those inside them. Raises UnicodeDecodeError for one that is not UTF-8."""
    inner = ([field.type.field(number) for number in range(field.type.num_fields)] for field in fields)
    return [(field.name, _names(own)) for field, own in zip(fields, inner, strict=True)]


def _validate(array: Any) -> None:
    """Raise ArrowInvalid for offsets and indices out of bounds: reading them would crash the process.

    Text that is not valid UTF-8 is accepted here, because it is found row by row.
    """
    import pyarrow as pa

    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        kind = array.type
        if pa.types.is_struct(kind):
            inner = [array.field(number) for number in range(kind.num_fields)]
        elif pa.types.is_dictionary(kind):
            inner = [array.dictionary]
        else:
            inner = [array.values] if hasattr(array, "values") else []
        for child in inner:
            _validate(child)


def is_arrow(head: bytes) -> bool:
    return head.startswith((_FILE, _STREAM))


class ArrowInput:
    """An open stream or file of record batches. A file in a stream is first copied to a temporary one. InputError."""

    def __init__(self, opened: Opened) -> None:
        import pyarrow as pa

        self.name = opened.name
        self.opened = opened
        self._taken: float = 0
        self._file: Any = None
        try:
            if opened.content.peek(len(_FILE)).startswith(_FILE):
                copy = spooled(opened)
                self._file, self._bytes = (copy, opened.counted.taken) if copy else arrow_file(opened.path)
                self._reader = pa.ipc.open_file(self._file)
            else:
                self._reader = pa.ipc.open_stream(pa.PythonFile(opened.content, mode="r"))
            self.schema: Any = self._reader.schema
            _names(self.schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.name}: not a complete Arrow stream or file ({shown(str(error), 200)})") from error

    def units(self) -> Units:
        """The number of rows; reads all record batches, after which `rows` has none. Raises InputError."""
        import pyarrow as pa

        try:
            return Units(sum(batch.num_rows for batch, _ in self._batches()), rows=True)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: the Arrow data is corrupt ({shown(str(error), 200)})") from error

    def rows(self, start: Place) -> Iterator[Row | Rejection]:
        """The rows from `start` on; a row unfit for Python is rejected alone."""
        import pyarrow as pa

        at_once, number, begin = batch_rows(self.schema), 0, 0.0
        try:
            for batch, end in self._batches():
                first = number
                skip = max(0, min(start.rows - number, batch.num_rows))
                number += skip
                for column in batch.columns if skip < batch.num_rows else ():
                    _validate(column)
                for offset in range(skip, batch.num_rows, at_once):
                    for value in values_of(batch.slice(offset, at_once)):
                        position = Position(self.name, number + 1, Place(start.file, number))
                        number += 1
                        self._taken = begin + (end - begin) * (number - first) / batch.num_rows
                        yield Row(position, value) if isinstance(value, dict) else Rejection(position, *value)
                begin = end
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: the Arrow data is corrupt ({shown(str(error), 200)})") from error

    def _batches(self) -> Iterator[tuple[Any, float]]:
        """Each batch, with the bytes on disk up to its end; of a file, they are estimated."""
        if self._file:
            count = self._reader.num_record_batches
            for number in range(count):
                yield self._reader.get_batch(number), self._bytes * (number + 1) / count
            self._taken = self._bytes
            return
        for batch in self._reader:
            yield batch, self.opened.counted.taken
        while self.opened.content.read(BLOCK):
            pass
        self._taken = self.opened.counted.taken

    def taken(self) -> int:
        """Bytes on disk; inside a record batch, its share by rows."""
        return int(self._taken)

    def close(self) -> None:
        if self._file:
            self._file.close()
        self.opened.content.close()
