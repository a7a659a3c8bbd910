"""The `--errors` file: one JSON line per rejected record with its position, error code, message and raw excerpt."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rerank_cli.errors import UsageError
from rerank_cli.formats.writing.line_sink import json_line
from rerank_cli.records import Rejection
from rerank_cli.storage.files import write_all, writing
from rerank_cli.storage.outputs import write_whole
from rerank_cli.storage.paths import STREAM, is_special, refuse_if_input
from rerank_cli.storage.remote import is_remote
from rerank_cli.storage.staging import make_room, staged_path


class ErrorsFile:
    """Written in place and created at the start, so that an empty file means that no record was rejected.

    One in a bucket is written to a local file, and put there when it is closed and by `publish`. The first `keep` bytes
    of an earlier run are kept, the rest is truncated. Raises UsageError for stdout and RefusedError for an input.
    """

    def __init__(self, path: str, inputs: Sequence[str] = (), keep: int = 0) -> None:
        if path == STREAM:
            raise UsageError("--errors cannot be - (stdout carries the answers). Fix: name a file")
        refuse_if_input(path, inputs, "another --errors")
        self._path = path
        self._special = is_special(path)
        local = path
        with writing(path):
            if is_remote(path):
                local = str(make_room(path))
            self._file = open(local, "r+b" if keep else "wb", buffering=0)  # noqa: SIM115 - held for the whole run
            if keep:
                self._file.truncate(keep)
                self._file.seek(keep)
        self._length = keep
        self._published = -1  # bytes that are in the bucket

    def write(self, rejection: Rejection) -> None:
        place = rejection.position
        line = {"path": place.path, "line": place.line, "id": rejection.id, "code": rejection.code}
        data = json_line({**line, "message": rejection.message, "raw": rejection.raw})
        with writing(self._path):
            write_all(self._file, data)
        self._length += len(data)

    def commit(self) -> int:
        """Make the lines so far durable; returns the length of the file in bytes."""
        with writing(self._path):
            if not self._special:
                os.fsync(self._file.fileno())
        return self._length

    def publish(self) -> None:
        """Put what was written into the bucket, if that is where the file belongs. Raises OutputError."""
        if is_remote(self._path) and self._published != self._length:
            self.commit()
            write_whole(self._path, staged_path(self._path).read_bytes())
            self._published = self._length

    def close(self) -> None:
        """After an error too, what was written so far is put into the bucket."""
        try:
            self.publish()
        finally:
            self._file.close()
