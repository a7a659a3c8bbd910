"""What the finished output of a shard says of itself, for `rerank merge`: an extended attribute, as a receipt is.

It is compressed, because ext4 has 4 KiB for all attributes of a file.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.storage.files import new_hash
from rerank_cli.storage.opening import Stamp

_ATTRIBUTE = "user.rerank.shard"


@dataclass(frozen=True, slots=True)
class ShardNote:
    """A shard, numbered `index` of `count`, has `records` records after the `before` records of earlier shards.

    `whole` is the receipt of the run without `--shard`; `settings` its fingerprint, `inputs` a hash of the sizes and
    beginnings of the inputs. `errors` is the path of the quarantine file of this shard, `errors_given` that of the
    whole run. `counts` are those of the statistics.
    """

    index: int
    count: int
    before: int
    records: int
    whole: str | None
    settings: Mapping[str, Any]
    inputs: str
    errors: str | None
    errors_given: str | None
    counts: Mapping[str, int]
    seconds: float


def inputs_hash(stamps: Sequence[Stamp | None]) -> str:
    """What copies of the same inputs have in common: the times of change are left out."""
    return new_hash(orjson.dumps([stamp and (stamp.size, stamp.head) for stamp in stamps])).hexdigest()


def attach_note(path: Path, note: ShardNote) -> bool:
    """Store the note on a file; False if its file system has no extended attributes, or no room for it."""
    if hasattr(os, "setxattr"):
        with suppress(OSError):
            data = orjson.dumps(asdict(note) | {"size": path.stat().st_size})
            os.setxattr(path, _ATTRIBUTE, zlib.compress(data, 9))
            return True
    return False


def note_of(path: Path) -> ShardNote | None:
    """The note of a file; None without one, or if the file's size has changed. Raises FileNotFoundError."""
    size = path.stat().st_size
    if hasattr(os, "getxattr"):
        with suppress(OSError, ValueError, TypeError, zlib.error):
            found = orjson.loads(zlib.decompress(os.getxattr(path, _ATTRIBUTE)))
            if found.pop("size") == size:
                return ShardNote(**found)
    return None
