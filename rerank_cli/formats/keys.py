"""Ids as they are compared between files: as text, whatever their JSON type, and as 64-bit hashes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def key_of(name: str | int | float) -> str:
    """The text of an id; whole numbers are written without a point."""
    if isinstance(name, str):
        return name
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def hashes_of(keys: Sequence[str]) -> Hashes:
    """One number a key."""
    digests = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys]
    return np.frombuffer(b"".join(digests), dtype="<u8")
