"""Outcomes as a Parquet file: parts in a folder beside it, joined into one file when the output is published.

A part is a complete Parquet file, written by one commit that has rows. Parts of an earlier run are removed from the
folder first; files of other names stay.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_cli import __version__
from rerank_cli.display import shown
from rerank_cli.errors import OutputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.options import OutputOptions
from rerank_cli.formats.reading.parquet_columns import provenance, typed
from rerank_cli.formats.writing.parquet_join import COMPRESSION, join
from rerank_cli.formats.writing.parquet_layout import layout
from rerank_cli.records import Outcome, Shape
from rerank_cli.storage.files import Committed, new_hash, not_as_committed, update_hash, writing
from rerank_cli.storage.outputs import publish
from rerank_cli.storage.paths import partial_path, sync_folder

_JOINED = "joined.parquet"


class ParquetSink:
    """See `Sink`. Rows are held only during one `write`. With `committed`, continues after an earlier run's parts."""

    patience = 15.0

    def __init__(
        self, options: OutputOptions, columns: ArrowSchema | None, shape: Shape, committed: Committed | None = None
    ) -> None:
        self._path = options.path
        columns = typed(columns)
        self._layout = layout(options, columns, shape)
        notes = {b"rerank.version": __version__, b"rerank.model": options.answers.model}
        self._schema = self._layout.schema.with_metadata({**provenance(columns), **notes})
        _check_writable(self._schema, options.path)
        self._folder = partial_path(options.path)
        self._parts: list[Path] = []
        self._joined: Path | None = None
        self._open: tuple[BinaryIO, Any] | None = None  # the file and writer of the next part
        self._hash = new_hash()
        with writing(self._path):
            if committed:
                while len(self._parts) < committed.length and self._next().is_file():
                    self._add(self._next())
                if (len(self._parts), self._hash.hexdigest()) != (committed.length, committed.digest):
                    raise not_as_committed(self._path)
            else:
                if self._folder.is_file():
                    self._folder.unlink()
                self._folder.mkdir(exist_ok=True)
            for file in set(_files(self._folder)) - set(self._parts):
                file.unlink()

    def write(self, outcomes: Sequence[Outcome]) -> None:
        if rows := self._layout.rows_of(outcomes):
            table = pa.Table.from_pylist(rows, schema=self._schema)
            with writing(self._path):
                if self._open is None:
                    file = open(self._next(), "wb", buffering=0)  # noqa: SIM115 - open until the commit
                    self._open = file, pq.ParquetWriter(file, self._schema, compression=COMPRESSION)
                self._open[1].write_table(table)

    def commit(self) -> Committed:
        if self._open:
            file, writer = self._open
            with writing(self._path):
                writer.close()
                os.fsync(file.fileno())
                file.close()
                sync_folder(self._folder)
                self._add(self._next())
            self._open = None
        return Committed(len(self._parts), self._hash.hexdigest())

    def finish(self) -> Path:
        self.commit()
        joined = self._folder / _JOINED
        with writing(self._path), open(joined, "wb") as file:
            join([str(part) for part in self._parts], self._schema, file)
            file.flush()
            os.fsync(file.fileno())
        self._joined = joined
        return joined

    def publish(self, attributes: Mapping[str, str] | None = None) -> None:
        publish(self._joined or self.finish(), self._path, attributes)
        with writing(self._path):
            remove_parts(self._folder)

    def abandon(self) -> None:
        """The open part is left without a Parquet footer: only committed parts can be read."""
        if self._open:
            file, writer = self._open
            writer.is_open = False
            file.close()
        self._open = None

    def _add(self, part: Path) -> None:
        with open(part, "rb") as file:
            update_hash(self._hash, file, part.stat().st_size)
        self._parts.append(part)

    def _next(self) -> Path:
        return self._folder / f"part-{len(self._parts):05d}.parquet"


def remove_parts(folder: Path) -> None:
    """Remove the files written here, and the folder unless it contains other files."""
    for file in _files(folder):
        file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    return [*folder.glob("part-*.parquet"), *folder.glob(_JOINED)]


def _check_writable(schema: ArrowSchema, path: str) -> None:
    """Raise OutputError if rows cannot be written to a column of that type, such as nested extension types."""
    for field in schema:
        try:
            pq.write_table(pa.table([pa.array([None], field.type)], schema=pa.schema([field])), io.BytesIO())
        except pa.ArrowException as error:
            reason = f"`{shown(field.name, 40)}` cannot be written as Parquet (got type {shown(str(field.type), 120)})"
            raise OutputError(f"{shown(path, 300)}: column {reason}. Fix: JSON lines as output") from error
