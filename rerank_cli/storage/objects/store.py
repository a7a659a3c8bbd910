"""The store seam: what every place that holds objects can do.

A store reads at any offset, says size and version of an object, and lists; one that can be written also puts whole
objects, puts one only if it is absent or unchanged, and deletes. All errors are OSErrors with a reason of one line:
FileNotFoundError for an object that is not there, `ChangedObject` for one of another version, `StoreError` otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | memoryview
"""Bytes, or an object with their buffer protocol that a library gave: `bytes` and `memoryview` take both."""


class StoreError(OSError):
    """A store did not do what was asked, after all attempts. The message is the reason."""


class ChangedObject(StoreError):
    """An object is not of the version that was asked for."""


@dataclass(frozen=True, slots=True)
class Facts:
    """An object: its size in bytes, its version (the ETag), when it was put by the clock of the store, its attributes.

    `changed` is in seconds since 1970, 0 if the store does not say. A list has no attributes.
    """

    size: int
    version: str
    changed: float = 0.0
    attributes: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Objects by key. May be used from several threads."""

    def facts(self, key: str) -> Facts: ...

    def read(self, key: str, start: int, length: int, version: str) -> Buffer:
        """`length` bytes from `start` on, which must be inside the object. ChangedObject if it has another version."""

    def listed(self, folder: str) -> Iterator[tuple[str, Facts]]:
        """The keys of all objects below a folder ("" for all), with their facts, in any order."""


class WritableStore(Store, Protocol):
    def put(self, key: str, data: bytes, attributes: Mapping[str, str] | None = None) -> str:
        """Replace the object as a whole; returns the version."""

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        """The version, or None if there is an object already. `data` must differ from what others would put."""

    def put_if_version(self, key: str, data: bytes, version: str) -> str | None:
        """Replace this version; returns the new one, or None if the object is another or gone. As above for `data`."""

    def upload(self, key: str, path: Path, attributes: Mapping[str, str]) -> None:
        """Replace the object by a local file of any size; it appears as a whole, or not at all."""

    def delete(self, keys: Sequence[str]) -> None:
        """Keys without an object are passed over."""
