"""The status of an output, read from the files beside it without disturbing a process that writes them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.errors import InputError
from rerank_cli.run.recovery.checkpoint import Checkpoint, load
from rerank_cli.run.recovery.lease import holder_of
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.recovery.receipt import recorded, signed
from rerank_cli.storage.lock import holder
from rerank_cli.storage.outputs import is_finished


@dataclass(frozen=True, slots=True)
class Status:
    """`state` is `running`, `stopped` (the same command continues), `complete`, or `exists` (of unknown origin).

    `holder` is the process that writes the output, `checkpoint` the last commit, `kept_bytes` the size of unfinished
    files. `progress` has the fields of `run.figures.progress.snapshot`: what the process noted last, else of the last
    commit. `finished` has the figures of a complete output, see `Summary.record`.
    """

    output: str
    state: str
    holder: str | None
    checkpoint: Checkpoint | None
    kept_bytes: int
    progress: dict[str, Any] | None
    finished: dict[str, Any] | None

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the last commit by the system clock, 0 if the clock was set back."""
        if self.checkpoint is None:
            return None
        then = datetime.fromisoformat(self.checkpoint.progress["time"])
        return max(0.0, (datetime.now(UTC) - then).total_seconds())

    def as_json(self) -> dict[str, Any]:
        found = self.checkpoint
        return {
            "output": self.output,
            "state": self.state,
            "holder": self.holder,
            "kept_bytes": self.kept_bytes,
            "age_seconds": self.age_seconds,
            "progress": self.progress,
            "finished": self.finished,
            "counts": found.counts if found else None,
            "fingerprint": found.fingerprint if found else None,
        }


def status_of(output: str, checkpoint: str | None = None) -> Status:
    """Raises InputError if no such output exists, RefusedError if its checkpoint is damaged."""
    place = OutputState.of(output, checkpoint)
    who = holder(place.lock) if place.lock else None
    who = who or (holder_of(place.lease.path) if place.lease else None)
    saved = place.remote.found if place.remote else load(place.checkpoint) if place.checkpoint else None
    is_there = is_finished(output)
    finished = recorded(output) if is_there else None
    if who:
        state = "running"
    elif saved or (place.journal and place.journal.exists()):
        state = "stopped"
    elif is_there:
        state = "complete" if finished or signed(output) else "exists"
    else:
        raise InputError(f"{output}: there is no such output, and no checkpoint of one")
    progress = saved.progress if saved else None
    if who and who.note:
        with suppress(orjson.JSONDecodeError):  # read while it was being written
            progress = orjson.loads(who.note)
    process = who.process if who else None
    return Status(
        output, state, process, saved, _bytes_in(place.partial), progress, finished if state == "complete" else None
    )


def _bytes_in(path: Path | None) -> int:
    """Size of a file, or of the files of a folder; files may disappear meanwhile."""
    total = 0
    with suppress(FileNotFoundError):
        for file in path.iterdir() if path and path.is_dir() else filter(None, [path]):
            with suppress(FileNotFoundError):
                total += file.stat().st_size
    return total
