"""An output that is being written: a file under its final name plus `.partial`, which takes that name when complete.

An output in a bucket is written to a local file in the same way, and put into the bucket when complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import BinaryIO, TypeAlias, cast

from rerank_cli.storage.files import Committed, Stream, new_hash, not_as_committed, update_hash, write_all, writing
from rerank_cli.storage.outputs import publish
from rerank_cli.storage.paths import partial_path, sync_folder


class PartialFile:
    """A file under its `.partial` name, `path`, until `publish` renames it. Unbuffered: closing it writes nothing.

    With `committed`, the file of an earlier run is continued: bytes after that point are cut off. Raises RefusedError
    if the bytes before it do not have the committed hash.
    """

    def __init__(self, path: str, committed: Committed | None = None) -> None:
        self._path = path
        self.path = partial_path(path)
        self._length = 0
        self._hash = new_hash()
        with writing(path):
            file = open(self.path, "r+b" if committed else "wb", buffering=0)  # noqa: SIM115 - open until published
            self._file = cast("BinaryIO", file)
            if committed is None:
                sync_folder(self.path.parent)
                return
            self._length = update_hash(self._hash, self._file, committed.length)
            if (self._length, self._hash.hexdigest()) != (committed.length, committed.digest):
                self._file.close()
                raise not_as_committed(path)
            self._file.truncate(committed.length)
            self._file.seek(committed.length)

    def write(self, data: bytes) -> None:
        with writing(self._path):
            write_all(self._file, data)
        self._hash.update(data)
        self._length += len(data)

    def sync(self) -> Committed:
        with writing(self._path):
            os.fsync(self._file.fileno())
        return Committed(self._length, self._hash.hexdigest())

    def publish(self, attributes: Mapping[str, str] | None = None) -> None:
        self.abandon()
        publish(self.path, self._path, attributes)

    def abandon(self) -> None:
        with writing(self._path):
            self._file.close()


ByteFile: TypeAlias = PartialFile | Stream
"""A destination for bytes. `sync` makes durable what is written and returns it; `abandon` is allowed in any state."""
