"""What the finished output of a shard says of itself, for `rerank merge`: an attribute, as a receipt is.

It is compressed, because ext4 has 4 KiB for all attributes of a file, and S3 2 KB.
"""

from __future__ import annotations

import zlib
from base64 import b85decode, b85encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from rerank_cli.storage.files import new_hash
from rerank_cli.storage.opening import Stamp
from rerank_cli.storage.outputs import attributes_of, size_of

_NAME = "shard"


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


def as_attribute(note: ShardNote, size: int) -> dict[str, str]:
    """The note as an attribute of an output of `size` bytes."""
    return {_NAME: b85encode(zlib.compress(orjson.dumps(asdict(note) | {"size": size}), 9)).decode()}


def note_of(path: str) -> ShardNote | None:
    """The note of a file; None without one, or if the file's size has changed."""
    with suppress(ValueError, TypeError, KeyError, zlib.error):
        found = orjson.loads(zlib.decompress(b85decode(attributes_of(path).get(_NAME, ""))))
        if found.pop("size") == size_of(path):
            return ShardNote(**found)
    return None
