"""Where a run stands, on disk: written after the output bytes it speaks of are safe, and whole or not at all.

The file is one JSON object with its own hash, so that a torn or flipped one is told from a good one.
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
from rerank_cli.storage.paths import successor_of

_KIND = "rerank checkpoint 2"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point between two chunks.

    `records` are finished and in the output. `reached` is where the input was then, `stamps` and `shape` what the
    inputs were, `memory` how much of the file counts that their reader keeps. `output` and `quarantine` say how much of
    those files counts, `judged` how much of the orders that are kept to be measured. `counts` are the stats's figures
    at that point, `progress` what they meant to a person. `sealed` is the identity of the finished file, if there is
    one, `receipt` tells its run from others.
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
    sealed: Sequence[int] | None = None
    receipt: str | None = None


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write beside the final name, make it durable, exchange. OutputError where the system refuses."""
    body = orjson.dumps(asdict(checkpoint))
    replace_file(path, orjson.dumps({"kind": _KIND, "hash": _digest(body), "checkpoint": body.decode()}))


def load(path: Path) -> Checkpoint | None:
    """The checkpoint, or None where there is none; RefusedError if it is damaged or of another version."""
    try:
        content = orjson.loads(path.read_bytes())
        if content["kind"] != _KIND:
            raise RefusedError(f"{path}: of another version of rerank ({content['kind']}). Fix: --restart")
        body = content["checkpoint"].encode()
        if content["hash"] != _digest(body):
            raise ValueError
        return _restored(orjson.loads(body))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{path}: damaged, nothing can go on from it. Fix: --restart") from error


def is_ours(path: Path) -> bool:
    """Is the file a checkpoint, good or bad, or not there at all? One that is something else must not be replaced."""
    try:
        with path.open("rb") as file:
            return file.read(len(_KIND) + 9) == b'{"kind":"' + _KIND.encode()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def remove(path: Path) -> None:
    """Take the checkpoint away, and what a kill may have left of its successor."""
    for file in (path, successor_of(path)):
        file.unlink(missing_ok=True)


def _restored(values: dict[str, Any]) -> Checkpoint:
    reached = values["reached"]
    place = reached["place"] and Place(**reached["place"])
    values["reached"] = InputPosition(**(reached | {"place": place}))
    values["stamps"] = [stamp and Stamp(**stamp) for stamp in values["stamps"]]
    values["shape"] = values["shape"] and Shape(values["shape"])
    values["memory"] = values["memory"] and Committed(**values["memory"])
    values["judged"] = values.get("judged") and Committed(**values["judged"])
    values["output"] = Committed(**values["output"])
    return Checkpoint(**values)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
