"""The log of a training run: one JSON object a step, and one an evaluation, seen while it happens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.storage.files import write_all, writing


class StepLog:
    """Appends lines to a file; the first `keep` bytes of an earlier run stay. Raises OutputError."""

    def __init__(self, path: str, keep: int) -> None:
        self.path = Path(path)
        with writing(path):
            known = keep > 0 and self.path.exists() and self.path.stat().st_size >= keep
            self._file = open(self.path, "r+b" if known else "wb", buffering=0)  # noqa: SIM115 - open for the whole run
            self._length = keep if known else 0
            self._file.truncate(self._length)
            self._file.seek(self._length)

    def write(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        with writing(str(self.path)):
            write_all(self._file, data)
        self._length += len(data)

    def commit(self) -> int:
        """Make the lines so far durable; returns their bytes."""
        with writing(str(self.path)):
            os.fsync(self._file.fileno())
        return self._length

    def close(self) -> None:
        self._file.close()
