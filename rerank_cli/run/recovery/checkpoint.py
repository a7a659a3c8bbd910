"""The checkpoint file: how far a run has come. Written atomically, after the output bytes it describes are durable.

The file is one JSON object with a hash of its content, so that a torn or corrupted file is detected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.errors import RefusedError
from rerank_cli.records import Place, Shape
from rerank_cli.run.chunks import InputPosition
from rerank_cli.run.recovery.fingerprint import Fingerprint
from rerank_cli.storage.files import Committed, replace_file
from rerank_cli.storage.opening import Stamp

_KIND = "rerank checkpoint 2"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a run between two chunks. The first `records` records are processed, and their results are durable.

    `reached` is the input position, `stamps` and `shape` identify the inputs, `memory` is the valid part of the
    reader's query log. `output`, `quarantine` (bytes) and `judged` are the valid parts of the output, of the errors
    file and of the rankings kept for evaluation. `counts` and `progress` are the statistics, for the next run and for
    `rerank status`. `before` is the number of records of earlier shards. Once the output is
    finished, `sealed` is the file's identity and `receipt` its receipt.
    """

    fingerprint: Fingerprint
    records: int
    reached: InputPosition
    stamps: Sequence[Stamp | None]
    shape: Shape | None
    memory: Committed | None
    output: Committed
    quarantine: int = 0
    judged: Committed | None = None
    counts: dict[str, int] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    before: int = 0
    sealed: Sequence[int] | None = None
    receipt: str | None = None


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Replace the file atomically and durably. Raises OutputError."""
    replace_file(path, encoded(checkpoint))


def encoded(checkpoint: Checkpoint) -> bytes:
    """The content of the file."""
    body = orjson.dumps(asdict(checkpoint))
    return orjson.dumps({"kind": _KIND, "hash": _digest(body), "checkpoint": body.decode()})


def load(path: Path) -> Checkpoint | None:
    """Read a checkpoint, None if there is no file. Raises RefusedError if it is damaged or of another version."""
    try:
        return decoded(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read: {error.strerror}") from error


def decoded(data: bytes, path: str) -> Checkpoint:
    """The checkpoint in the content of a file. Raises RefusedError as `load` does."""
    try:
        content = orjson.loads(data)
        if content["kind"] != _KIND:
            raise RefusedError(f"{path}: written by another version of rerank ({content['kind']}). Fix: --restart")
        body = content["checkpoint"].encode()
        if content["hash"] != _digest(body):
            raise ValueError
        values = orjson.loads(body)
        reached = values["reached"]
        place = reached["place"] and Place(**reached["place"])
        values["reached"] = InputPosition(**(reached | {"place": place}))
        values["stamps"] = [stamp and Stamp(**stamp) for stamp in values["stamps"]]
        values["shape"] = values["shape"] and Shape(values["shape"])
        values["memory"] = values["memory"] and Committed(**values["memory"])
        values["judged"] = values.get("judged") and Committed(**values["judged"])
        values["output"] = Committed(**values["output"])
        return Checkpoint(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{path}: the checkpoint is damaged, the run cannot be resumed. Fix: --restart") from error


def is_ours(path: Path) -> bool:
    """Whether the path may be replaced: it does not exist, or is a checkpoint of this version, damaged or not."""
    try:
        with path.open("rb") as file:
            return file.read(len(_KIND) + 9) == b'{"kind":"' + _KIND.encode()
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
