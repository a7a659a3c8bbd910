"""A folder that several processes share: small files written as a whole, or only if they are absent.

`Folder` is what the work on many files needs of the place where its outputs are. `LocalFolder` is a folder of a file
system, which several machines may have mounted.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from rerank_cli.errors import OutputError
from rerank_cli.storage.files import replace_file, writing

_UNFINISHED = ".new"  # as of `paths.successor_of`


class Entry(NamedTuple):
    """A file of a folder: its path in it, its size in bytes, and when it was written, by the folder's clock."""

    name: str
    size: int
    written: float


class Folder(Protocol):
    """Files by name; a name may have slashes. Every method but `now` and `read` raises OutputError if it fails."""

    def entries(self, under: str = "") -> Iterator[Entry]:
        """All files under a folder of this one, at any depth, in no order; none if it does not exist."""
        ...

    def entry(self, name: str) -> Entry | None: ...

    def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none."""
        ...

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists; whether it was written. Of several callers exactly one writes it."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file as a whole, durably."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        ...

    def now(self) -> float:
        """The time by the clock that dates the files."""
        ...


class LocalFolder:
    """A folder of a file system. It and folders in it are made when a file is written."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def entries(self, under: str = "") -> Iterator[Entry]:
        for folder, _, names in os.walk(self.path / under):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    info = path.stat()
                    yield Entry(path.relative_to(self.path).as_posix(), info.st_size, info.st_mtime)

    def entry(self, name: str) -> Entry | None:
        try:
            info = (self.path / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(name, info.st_size, info.st_mtime)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put_if_absent(self, name: str, data: bytes) -> bool:
        path = self.path / name
        own = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_UNFINISHED}")
        with writing(str(path)):
            while True:
                _write_new(own, data)
                try:
                    os.link(own, path)  # fails if the name exists, on file systems of a network too
                    return True
                except FileExistsError:
                    return own.stat().st_nlink == 2  # the answer to an earlier try of the same call was lost
                except FileNotFoundError:  # deleted by another process, which has taken this one for dead
                    continue
                finally:
                    own.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        path = self.path / name
        while True:
            with writing(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return replace_file(path, data)
            except OutputError as error:  # another process has deleted the folder because it was empty
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise

    def delete(self, name: str) -> None:
        with writing(str(self.path / name)):
            (self.path / name).unlink(missing_ok=True)

    def delete_unfinished(self) -> None:
        """Delete what dead processes have not finished to write. For the only process of a folder."""
        for name in [entry.name for entry in self.entries() if entry.name.endswith(_UNFINISHED)]:
            self.delete(name)

    def delete_empty(self, under: str) -> None:
        """Delete a folder of this one and those in it, as far as they are empty."""
        for folder, _, _ in os.walk(self.path / under, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()

    def now(self) -> float:
        probe = self.path / f".{secrets.token_hex(8)}{_UNFINISHED}"
        with writing(str(self.path)):
            _write_new(probe, b"")
            try:
                return probe.stat().st_mtime
            finally:
                probe.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file; its folder is made, also if another process deletes it meanwhile because it is empty."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.write_bytes(data)
            return
