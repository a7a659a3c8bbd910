"""The file that `--errors` names: one JSON line a rejected record, with its place, its reason and what it was."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rerank_cli.errors import UsageError
from rerank_cli.formats.files import is_special, write_all, writing
from rerank_cli.formats.identity import refuse_if_input
from rerank_cli.formats.line_sink import json_line
from rerank_cli.formats.options import STREAM
from rerank_cli.records import Rejection


class ErrorsFile:
    """Written where it is, from its beginning; there from the start, so that an empty one says that nothing was bad."""

    def __init__(self, path: str, inputs: Sequence[str] = ()) -> None:
        if path == STREAM:
            raise UsageError("--errors cannot be - (stdout carries the answers). Fix: name a file")
        refuse_if_input(path, inputs, "another --errors")
        self._path = path
        self._special = is_special(path)
        with writing(path):
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - held open for the whole run

    def write(self, rejection: Rejection) -> None:
        """Add one line."""
        place = rejection.position
        line = {"path": place.path, "line": place.line, "id": rejection.id, "code": rejection.code}
        with writing(self._path):
            write_all(self._file, json_line({**line, "message": rejection.message, "raw": rejection.raw}))

    def commit(self) -> None:
        """Make the lines so far durable."""
        with writing(self._path):
            if not self._special:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
