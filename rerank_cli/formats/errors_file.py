"""The file that `--errors` names: one JSON line a rejected record, with its place, its reason and what it looked like."""

from __future__ import annotations

import os

from rerank_cli.errors import UsageError
from rerank_cli.formats.files import writing
from rerank_cli.formats.line_sink import json_line
from rerank_cli.formats.options import STREAM
from rerank_cli.records import Rejection


class ErrorsFile:
    """Written where it is, from its beginning; there from the start, so that an empty one says that nothing was bad."""

    def __init__(self, path: str) -> None:
        if path == STREAM:
            raise UsageError("--errors cannot be - (stdout carries the answers). Fix: name a file")
        self._path = path
        with writing(path):
            self._file = open(path, "wb", buffering=0)

    def write(self, rejection: Rejection) -> None:
        """Add one line. `id` is left out of account by nobody: it is null where the record had none."""
        place = rejection.position
        line = {"path": place.path, "line": place.line, "id": rejection.id, "code": rejection.code}
        with writing(self._path):
            self._file.write(json_line({**line, "message": rejection.message, "raw": rejection.raw}))

    def commit(self) -> None:
        """Make the lines so far durable."""
        with writing(self._path):
            if os.fstat(self._file.fileno()).st_nlink and self._file.seekable():
                os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
