"""Outcomes as a Parquet file: finished parts in a folder beside it, joined to one file when it is published.

A part is a whole Parquet file, one a commit that has rows. A stale folder of an earlier run is emptied first, of our
own files alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rerank_cli import __version__
from rerank_cli.display import shown
from rerank_cli.errors import OutputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.options import OutputOptions
from rerank_cli.formats.reading.parquet_columns import provenance
from rerank_cli.formats.writing.parquet_join import COMPRESSION, join
from rerank_cli.formats.writing.parquet_layout import layout
from rerank_cli.records import Outcome, Shape
from rerank_cli.storage.files import Committed, new_hash, not_as_committed, update_hash, writing
from rerank_cli.storage.paths import final_path, partial_path, sync_folder

_JOINED = "joined.parquet"


class ParquetSink:
    """See `Sink`. Rows are held no longer than one `write`. With `committed`, an earlier run's parts are taken up."""

    patience = 15.0

    def __init__(
        self, options: OutputOptions, columns: ArrowSchema | None, shape: Shape, committed: Committed | None = None
    ) -> None:
        self._path = options.path
        self._layout = layout(options, columns, shape)
        notes = {b"rerank.version": __version__, b"rerank.model": options.answers.model}
        self._schema = self._layout.schema.with_metadata({**provenance(columns), **notes})
        _check_buildable(self._schema, options.path)
        self._folder = partial_path(options.path)
        self._parts: list[Path] = []
        self._joined: Path | None = None
        self._file: BinaryIO | None = None
        self._writer: Any = None
        self._hash = new_hash()
        with writing(self._path):
            if committed:
                self._take_up(committed)
            else:
                _empty(self._folder)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        import pyarrow as pa

        rows = self._layout.rows_of(outcomes)
        if not rows:
            return
        table = pa.Table.from_pylist(rows, schema=self._schema)
        with writing(self._path):
            self._part().write_table(table)

    def commit(self) -> Committed:
        if self._writer is not None and self._file is not None:
            with writing(self._path):
                self._writer.close()
                os.fsync(self._file.fileno())
                self._file.close()
                sync_folder(self._folder)
                self._add(self._next())
            self._writer = self._file = None
        return Committed(len(self._parts), self._hash.hexdigest())

    def finish(self) -> Path:
        self.commit()
        joined = self._folder / _JOINED
        with writing(self._path), open(joined, "wb") as file:
            join(self._parts, self._schema, file)
            file.flush()
            os.fsync(file.fileno())
        self._joined = joined
        return joined

    def publish(self) -> None:
        joined = self._joined or self.finish()
        final = final_path(self._path)
        with writing(self._path):
            os.replace(joined, final)  # noqa: PTH105 - at once or not at all
            sync_folder(final.parent)
            remove_parts(self._folder)

    def abandon(self) -> None:
        """The part at hand is left without its footer: only those that were committed can be read."""
        if self._writer is not None and self._file is not None:
            self._writer.is_open = False
            self._file.close()
        self._writer = self._file = None

    def _take_up(self, committed: Committed) -> None:
        while len(self._parts) < committed.length and self._next().is_file():
            self._add(self._next())
        if (len(self._parts), self._hash.hexdigest()) != (committed.length, committed.digest):
            raise not_as_committed(self._path)
        for file in set(_ours(self._folder)) - set(self._parts):
            file.unlink()

    def _add(self, part: Path) -> None:
        with open(part, "rb") as file:
            update_hash(self._hash, file, part.stat().st_size)
        self._parts.append(part)

    def _part(self) -> Any:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._file = open(self._next(), "wb", buffering=0)  # noqa: SIM115 - open until the commit
            self._writer = pq.ParquetWriter(self._file, self._schema, compression=COMPRESSION)
        return self._writer

    def _next(self) -> Path:
        return self._folder / f"part-{len(self._parts):05d}.parquet"


def _empty(folder: Path) -> None:
    """An empty folder under this name."""
    if folder.is_file():
        folder.unlink()
    folder.mkdir(exist_ok=True)
    for file in _ours(folder):
        file.unlink()


def remove_parts(folder: Path) -> None:
    """Remove our files, and the folder unless somebody put something else into it."""
    for file in _ours(folder):
        file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _ours(folder: Path) -> list[Path]:
    return [*folder.glob("part-*.parquet"), *folder.glob(_JOINED)]


def _check_buildable(schema: ArrowSchema, path: str) -> None:
    """Raise OutputError if a column has a type that rows cannot be put into: extension types inside others, mostly."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for field in schema:
        try:
            pq.write_table(pa.table([pa.array([None], field.type)], schema=pa.schema([field])), io.BytesIO())
        except pa.ArrowException as error:
            reason = f"`{shown(field.name, 40)}` cannot be written as Parquet (got type {shown(str(field.type), 120)})"
            raise OutputError(f"{shown(path, 300)}: column {reason}. Fix: JSON lines as output") from error
