"""Where a run stands, on disk: written after the output bytes it speaks of are safe, and whole or not at all.

The file is one JSON object with its own hash, so that a torn or flipped one is told from a good one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.errors import OutputError, RefusedError
from rerank_cli.formats import Committed
from rerank_cli.jobs.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point between two chunks.

    `records` are finished and in the output, `trace` is the hash of their content; `output` and `quarantine` say how
    much of those files counts; `counts` are the tally's figures at that point.
    """

    fingerprint: Fingerprint
    records: int
    trace: str
    output: Committed
    quarantine: int = 0
    counts: dict[str, int] = field(default_factory=dict)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write beside the final name, make it durable, exchange. OutputError where the system refuses."""
    body = orjson.dumps(asdict(checkpoint))
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(orjson.dumps({"hash": _digest(body), "checkpoint": body.decode()}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def load(path: Path) -> Checkpoint | None:
    """The checkpoint, or None where there is none; RefusedError if it is damaged."""
    try:
        content = orjson.loads(path.read_bytes())
        body = content["checkpoint"].encode()
        if content["hash"] != _digest(body):
            raise ValueError
        values: dict[str, Any] = orjson.loads(body)
        return Checkpoint(**(values | {"output": Committed(**values["output"])}))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{path}: damaged, nothing can go on from it. Fix: --restart") from error


def remove(path: Path) -> None:
    """Take the checkpoint away, and what a kill may have left of its successor."""
    for file in (path, path.with_name(path.name + ".new")):
        file.unlink(missing_ok=True)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
