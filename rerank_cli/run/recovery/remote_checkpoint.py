"""A checkpoint in a bucket, with everything that a machine needs to go on: a run survives the loss of its disk.

A run works on local files as always. Each commit also puts the bytes that these files gained as an object, a part, and
then the checkpoint, which says which parts are valid. A run on an empty disk fetches them first. The checkpoint is
replaced only if it is the one that this run put or read last, so that a process that lost its lease cannot harm.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.display import shown
from rerank_cli.errors import OutputError, RefusedError
from rerank_cli.run.recovery import checkpoint as files
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.storage.files import replace_file, writing
from rerank_cli.storage.objects.store import WritableStore
from rerank_cli.storage.objects.stores import writable

PATIENCE = 15.0  # seconds of work between commits, by default: each costs two requests and an object
_KIND = "rerank remote checkpoint 1"
_MOST_BYTES = 32 << 20  # of a part
_FETCHES = 4


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A local file that only grows, or a folder of files that are added, and how much of it a checkpoint refers to."""

    name: str
    path: Path
    length: Callable[[Checkpoint], int]


@dataclass(slots=True)
class _Head:
    """The object: the checkpoint as in a local file, the disk of who put it, valid parts, what they have of each file.

    `parts` are runs of numbers with the token of who put them: [token, first, end].
    """

    checkpoint: str
    disk: str
    parts: list[list[Any]] = field(default_factory=list)
    lengths: dict[str, int] = field(default_factory=dict)
    version: str | None = None

    @property
    def count(self) -> int:
        return int(self.parts[-1][2]) if self.parts else 0

    def names(self) -> Iterator[str]:
        for token, first, end in self.parts:
            yield from (f"{number:08d}-{token}" for number in range(first, end))


class RemoteCheckpoint:
    """The checkpoint at `path`, for a run whose local one is `local`; `mirrored` are its other files."""

    def __init__(self, path: str, local: Path, mirrored: Sequence[Mirrored]) -> None:
        self.path = path
        self._local = local
        self._mirrored = mirrored
        self._disk_file = local.with_name(local.name + ".disk")
        self._token = secrets.token_hex(4)
        self._head = _Head("", "")
        self._known = False

    @property
    def found(self) -> Checkpoint | None:
        """The checkpoint that is in the bucket, None if there is none. Raises RefusedError if it is damaged."""
        self._look()
        return files.decoded(self._head.checkpoint.encode(), self.path) if self._head.checkpoint else None

    def restore(self) -> bool:
        """Make the local files what the checkpoint in the bucket refers to; whether anything was fetched.

        Local files that the same disk has put there are kept: they have all of it, and perhaps more. Raises
        RefusedError for parts that are missing, OutputError.
        """
        self._look()
        if not self._head.checkpoint or (self._head.disk == self._disk() and self._local.exists()):
            return False
        with self._using() as (store, key):
            self._local.unlink(missing_ok=True)
            self.clear()
            with ThreadPoolExecutor(_FETCHES) as pool:
                names = list(self._head.names())
                for begin in range(0, len(names), _FETCHES):
                    some = names[begin : begin + _FETCHES]
                    for name, data in zip(
                        some, pool.map(lambda one: _whole(store, f"{key}.parts/{one}"), some), strict=True
                    ):
                        if data is None:
                            what = f"a part of it is missing ({name})"
                            raise RefusedError(f"{shown(self.path, 300)}: {what}. Fix: --restart")
                        self._append(data)
            for mirrored in self._mirrored:
                for path in [mirrored.path, *mirrored.path.glob("*")] if mirrored.path.is_dir() else [mirrored.path]:
                    if path.is_file():
                        _sync(path)
            self._claim_disk()
            replace_file(self._local, self._head.checkpoint.encode())
        return True

    def commit(self, now: Checkpoint) -> None:
        """Put what the local files gained, then the checkpoint. Call after the local one is saved. OutputError.

        Raises RefusedError if another process has put a checkpoint meanwhile.
        """
        self._look()
        head = self._head
        with self._using() as (store, key):
            if self._disk() is None:
                self._claim_disk()
            lengths, number = dict(head.lengths), head.count
            for data in self._gained(now, lengths):
                store.put(f"{key}.parts/{number:08d}-{self._token}", data)
                number += 1
            parts = list(head.parts)
            if number > head.count:
                if parts and parts[-1][0] == self._token:
                    parts[-1] = [self._token, parts[-1][1], number]
                else:
                    parts.append([self._token, head.count, number])
            made = _Head(files.encoded(now).decode(), self._disk() or "", parts, lengths)
            fields = {"checkpoint": made.checkpoint, "disk": made.disk, "parts": parts, "lengths": lengths}
            data = orjson.dumps({"kind": _KIND, "put": secrets.token_hex(8), **fields})
            made.version = (
                store.put_if_absent(key, data)
                if head.version is None
                else store.put_if_version(key, data, head.version)
            )
        if made.version is None:
            what = "another process has put a checkpoint meanwhile"
            raise RefusedError(f"{shown(self.path, 300)}: {what}. Fix: one run of an output at a time")
        self._head = made

    def remove(self) -> None:
        """Remove the checkpoint and all parts, also those of a run that was killed. OutputError.

        Of a finished output the parts first: a kill in between leaves a checkpoint that says that it is finished.
        """
        self._look()
        with self._using() as (store, key):
            finished = bool(self._head.checkpoint) and files.decoded(self._head.checkpoint.encode(), self.path).sealed
            if not finished:
                store.delete([key])
            store.delete([name for name, _ in store.listed(f"{key}.parts/")])
            if finished:
                store.delete([key])
        self._head = _Head("", "")
        self._disk_file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the local files that are mirrored."""
        for mirrored in self._mirrored:
            if mirrored.path.is_dir():
                for path in mirrored.path.iterdir():
                    path.unlink()
                mirrored.path.rmdir()
            mirrored.path.unlink(missing_ok=True)

    def _look(self) -> None:
        """Read the object once. Raises RefusedError if it is not a checkpoint of this version."""
        if self._known:
            return
        with self._using() as (store, key):
            try:
                facts = store.facts(key)
                found = orjson.loads(bytes(store.read(key, 0, facts.size, facts.version)))
                if found["kind"] != _KIND:
                    raise ValueError
                parts, lengths = found["parts"], found["lengths"]
                self._head = _Head(found["checkpoint"], found["disk"], parts, lengths, facts.version)
            except FileNotFoundError:
                pass
            except (ValueError, KeyError, TypeError):
                what = "is damaged, the run cannot be resumed"
                raise RefusedError(
                    f"{shown(self.path, 300)}: {what}. Fix: --restart, or another --checkpoint"
                ) from None
        self._known = True

    def _gained(self, now: Checkpoint, lengths: dict[str, int]) -> Iterator[bytes]:
        """Parts with what the files have beyond `lengths`, which is updated."""
        segments: list[tuple[str, bytes]] = []
        size = 0
        for mirrored in self._mirrored:
            length = mirrored.length(now)
            for name, data in _beyond(mirrored, lengths.get(mirrored.name, 0), length):
                segments.append((name, data))
                size += len(data)
                if size >= _MOST_BYTES:
                    yield _packed(segments)
                    segments, size = [], 0
            lengths[mirrored.name] = length
        if segments:
            yield _packed(segments)

    def _append(self, part: bytes) -> None:
        """Append the segments of a part to the local files."""
        header, _, data = part.partition(b"\n")
        known = {mirrored.name: mirrored.path for mirrored in self._mirrored}
        at = 0
        for name, length in orjson.loads(header):
            first, _, inner = name.partition("/")
            if first in known and "/" not in inner and inner not in (".", ".."):
                path = known[first] / inner if inner else known[first]
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "ab") as file:
                    file.write(data[at : at + length])
            at += length

    def _disk(self) -> str | None:
        """The name of this disk, None if it has none yet."""
        with suppress(OSError):
            return self._disk_file.read_text(encoding="ascii")
        return None

    def _claim_disk(self) -> None:
        replace_file(self._disk_file, secrets.token_hex(8).encode())

    @contextmanager
    def _using(self) -> Iterator[tuple[WritableStore, str]]:
        with writing(self.path):
            yield writable(self.path)


def is_ours(path: str) -> bool:
    """Whether a remote path may be replaced: there is nothing, or a checkpoint, damaged or not. Raises OutputError."""
    store, key = writable(path)
    head = b'{"kind":"' + _KIND.encode()
    try:
        facts = store.facts(key)
        return bytes(store.read(key, 0, min(facts.size, len(head)), facts.version)) == head
    except FileNotFoundError:
        return True
    except OSError as error:
        raise OutputError(f"{shown(path, 300)}: cannot be written: {error}") from error


def _beyond(mirrored: Mirrored, before: int, length: int) -> Iterator[tuple[str, bytes]]:
    """What a file has from `before` to `length`, in pieces; of a folder the files with these numbers."""
    if mirrored.path.is_dir():
        for path in sorted(mirrored.path.glob("part-*"))[before:length]:
            yield from _pieces(path, f"{mirrored.name}/{path.name}", 0, path.stat().st_size)
    elif length > before:
        yield from _pieces(mirrored.path, mirrored.name, before, length)


def _pieces(path: Path, name: str, begin: int, end: int) -> Iterator[tuple[str, bytes]]:
    with open(path, "rb") as file:
        file.seek(begin)
        while begin < end and (data := file.read(min(_MOST_BYTES, end - begin))):
            yield name, data
            begin += len(data)


def _packed(segments: Sequence[tuple[str, bytes]]) -> bytes:
    """A part: a line of JSON with name and length of each segment, then their bytes."""
    header = orjson.dumps([(name, len(data)) for name, data in segments])
    return b"\n".join([header, b"".join(data for _, data in segments)])


def _whole(store: WritableStore, key: str) -> bytes | None:
    try:
        facts = store.facts(key)
        return bytes(store.read(key, 0, facts.size, facts.version))
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
