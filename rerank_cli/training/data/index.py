"""Where each group of the data is: a byte range of a file, 22 bytes of memory for a group.

Groups of plain JSON are read from their own files. All others (compressed or remote files, Parquet, CSV, sorted rows,
groups of ids) are copied, one line of JSON each, to an unnamed temporary file.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import orjson

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.records import Json
from rerank_cli.storage.files import writing
from rerank_cli.storage.opening import BOM, is_local, not_readable

_COPY_BUFFER = 1 << 20


class GroupIndex:
    """Byte ranges of groups, added in order and read at any place. `folder` is where the temporary file is made."""

    def __init__(self, paths: Sequence[str], folder: str | None) -> None:
        """Raises InputError for a file that cannot be opened."""
        self._paths = paths
        self._folder = folder or tempfile.gettempdir()
        self._copy: BinaryIO | None = None
        self._copied = 0
        self._files, self._offsets, self._lengths = array("H"), array("Q"), array("Q")
        self._sizes = array("I")
        self._open: list[int] = []
        with ExitStack() as stack:
            stack.callback(self.close)
            for path in paths:
                if not is_local(path):
                    self._open.append(-1)  # all of its groups are copied
                    continue
                try:
                    self._open.append(os.open(path, os.O_RDONLY))
                except OSError as error:
                    raise not_readable(path, error) from error
            stack.pop_all()

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, file: int, offset: int, length: int, size: int) -> None:
        """A group of `length` bytes in a file; `size` is its size in characters, as `sizes` gives it."""
        self._files.append(file)
        self._offsets.append(offset)
        self._lengths.append(length)
        self._sizes.append(min(size, (1 << 32) - 1))

    def add_copy(self, record: Json, size: int) -> None:
        """A group that has no byte range of its own. Raises OutputError if the temporary file cannot be written."""
        line = orjson.dumps(record)
        with writing(self._folder):
            if self._copy is None:
                made = tempfile.TemporaryFile(dir=self._folder, buffering=_COPY_BUFFER)  # noqa: SIM115 - see close
                self._copy = cast("BinaryIO", made)
            self._copy.write(line)
        self.add(len(self._paths), self._copied, len(line), size)
        self._copied += len(line)

    def finish(self) -> None:
        """Make everything that was added readable."""
        if self._copy is not None:
            with writing(self._folder):
                self._copy.flush()
            self._open.append(self._copy.fileno())

    def read(self, place: int) -> bytes:
        """The bytes of a group. May be called from several threads. Raises InputError if the file was cut."""
        file, offset, length = self._files[place], self._offsets[place], self._lengths[place]
        data = os.pread(self._open[file], length, offset)
        while len(data) < length and (more := os.pread(self._open[file], length - len(data), offset + len(data))):
            data += more
        if len(data) < length:
            raise InputError(f"{shown(self._paths[file], 300)}: was cut while it was read. Fix: restore it")
        return data if offset else data.removeprefix(BOM)

    def begins_with(self, file: int, mark: bytes) -> bool:
        """Whether the content of a file begins so."""
        return os.pread(self._open[file], len(mark), 0) == mark

    def where(self, place: int) -> str:
        """A group for a message."""
        file = self._files[place]
        name = shown(self._paths[file], 300) if file < len(self._paths) else "the data"
        return f"{name} at byte {self._offsets[place]:,}" if file < len(self._paths) else f"group {place} of {name}"

    @property
    def sizes(self) -> npt.NDArray[np.uint32]:
        """The size of every group in characters."""
        return np.frombuffer(self._sizes, dtype=np.uint32)

    def close(self) -> None:
        for descriptor in self._open[: len(self._paths)]:
            if descriptor >= 0:
                os.close(descriptor)
        self._open = []
        if self._copy is not None:
            self._copy.close()
            self._copy = None
