"""Leases: which of several processes, on any machines, works on a name.

A process is present as long as it holds the lock of a file of its own and renews it. A lease is a file that is put if
it is absent and names its process. When that process is dead, the next lease of the same name has the next number.
Leases are never rewritten, and the lease with the highest number holds: a process that was taken over finds that out.

A process is dead when its file is gone, or when its lock is free on the machine it ran on. Of another machine, whose
locks may not be visible here, the process is dead when it has not renewed its file for `STALE` seconds of the folder's
own clock.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerank_cli.errors import HeldError, OutputError
from rerank_cli.storage.files import writing
from rerank_cli.storage.folder import LocalFolder
from rerank_cli.storage.lock import holder, locked

RENEWED = 10.0  # seconds between two renewals
STALE = 60.0
_WORKERS, _LEASES = "workers", "leases"


def this_machine() -> str:
    """Identifies the running kernel: locks of its processes are visible to each other, in containers too."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


@dataclass(slots=True)
class Worker:
    """A process that is present. `note` is what it tells of itself, an object, with every renewal."""

    folder: LocalFolder
    machine: str = field(default_factory=this_machine)
    stale: float = STALE
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    note: Callable[[], dict[str, Any]] = dict
    _set: Callable[[str], None] | None = None

    @contextmanager
    def present(self, renewed: float = RENEWED) -> Iterator[None]:
        """Be present until the block is left; a thread renews the note."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(renewed):
                self.renew()

        with ExitStack() as stack:
            self._set = self._appear(stack)
            self.renew()
            thread = threading.Thread(target=renew, daemon=True)
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()
                self._set = None

    def _appear(self, stack: ExitStack) -> Callable[[str], None]:
        path = self.folder.path / _WORKERS / self.token
        while True:
            with writing(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return stack.enter_context(locked(path, str(path)))
            except OutputError as error:  # another process has deleted the folder because it was empty
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise

    def renew(self) -> None:
        """Write the note now. A failure is the file system's, and shows when an output is written."""
        if self._set:
            with suppress(OSError):
                self._set(json.dumps({"machine": self.machine, **self.note()}))

    def hold(self, name: str) -> Lease:
        """Take the lease of a name, that of a dead process too. HeldError names the process that holds it."""
        key = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
        number, before = self._last(key)
        if before and self.is_alive(before):
            raise self._held(name, before)
        suspect = before is not None and note_of(self.folder, before).get("machine") != self.machine
        lease = Lease(self, name, key, number + 1, suspect)
        data = json.dumps({"worker": self.token, "name": name})
        if not self.folder.put_if_absent(lease.path, data.encode()):
            raise self._held(name, self._owner(lease.path))
        # The lease before may have been given back and taken anew since it was read.
        now = self._owner(_path(key, number)) if number else None
        if now not in (None, before) or self._last(key)[0] != lease.number:
            self.folder.delete(lease.path)
            raise self._held(name, now)
        return lease

    def is_alive(self, token: str) -> bool:
        """Whether the process of this token may still work."""
        if token == self.token:
            return True
        path = self.folder.path / _WORKERS / token
        if holder(path):
            return True
        found = self.folder.entry(f"{_WORKERS}/{token}")
        if found is None:
            return False
        if told(path).get("machine") == self.machine:
            return False
        return self.folder.now() - found.written < self.stale

    def others(self) -> list[str]:
        """The tokens of the other processes that are alive. Files of dead ones are deleted."""
        alive = []
        for token in workers(self.folder):
            if token == self.token:
                continue
            if self.is_alive(token):
                alive.append(token)
            else:
                self.folder.delete(f"{_WORKERS}/{token}")
        return alive

    def clear(self) -> None:
        """Delete the leases of dead processes and their files."""
        alive = {self.token, *self.others()}
        for path, _ in list(_numbered(self.folder)):
            if self._owner(path) not in alive:
                self.folder.delete(path)

    def process(self, token: str | None) -> str:
        """`process 7 on host` of a token."""
        return process_of(self.folder, token) if token else "another process"

    def _held(self, name: str, token: str | None) -> HeldError:
        return HeldError(f"{name}: being written by {self.process(token)}. Fix: wait for it, or another -o")

    def _last(self, key: str) -> tuple[int, str | None]:
        """The highest number of a lease, 0 if there is none, and its worker."""
        number = 0
        for name, _ in _numbered(self.folder, key):
            number = max(number, int(name.rpartition(".")[2]))
        return number, self._owner(_path(key, number)) if number else None

    def _owner(self, path: str) -> str | None:
        content = self.folder.read(path)
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(content or b"")["worker"])
        return None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a name, until it is given back or the process dies.

    `suspect`: the process before was on another machine and may still be alive, without knowing that it was taken over.
    """

    worker: Worker
    name: str
    key: str
    number: int
    suspect: bool = False

    @property
    def path(self) -> str:
        return _path(self.key, self.number)

    def check(self) -> None:
        """Raise HeldError if another process has taken this lease over."""
        worker = self.worker
        if worker._owner(self.path) != worker.token or worker.folder.entry(_path(self.key, self.number + 1)):
            raise HeldError(f"{self.name}: taken over by another process, which took this one for dead")

    def give_back(self) -> None:
        """Delete it, and those of dead processes before it; one that was taken over is left to the new process."""
        with suppress(HeldError):
            self.check()
            for number in range(1, self.number + 1):
                self.worker.folder.delete(_path(self.key, number))


def workers(folder: LocalFolder) -> list[str]:
    """The tokens of all processes that are present, or that died without a word."""
    names = (Path(entry.name).name for entry in folder.entries(_WORKERS))
    return sorted(name for name in names if "." not in name)


def told(path: Path) -> dict[str, Any]:
    """The last note of the process with this file; empty if it is being written just now."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes().partition(b"\n")[2])
        return found if isinstance(found, dict) else {}
    return {}


def note_of(folder: LocalFolder, token: str) -> dict[str, Any]:
    return told(folder.path / _WORKERS / token)


def process_of(folder: LocalFolder, token: str) -> str:
    """`process 7 on host`."""
    content = folder.read(f"{_WORKERS}/{token}") or b""
    return content.partition(b"\n")[0].decode("utf-8", "replace") or "another process"


def leased(folder: LocalFolder) -> dict[str, str]:
    """The token of the worker by name, of all leases that hold if their workers are alive."""
    found: dict[str, tuple[int, str]] = {}
    for path, number in _numbered(folder):
        with suppress(ValueError, KeyError, TypeError):
            content = json.loads(folder.read(path) or b"")
            if number > found.get(content["name"], (0, ""))[0]:
                found[content["name"]] = number, content["worker"]
    return {name: token for name, (_, token) in found.items()}


def _path(key: str, number: int) -> str:
    return f"{_LEASES}/{key[:2]}/{key}.{number}"


def _numbered(folder: LocalFolder, key: str = "") -> Iterator[tuple[str, int]]:
    """Paths and numbers of leases, of all keys or of one."""
    for entry in folder.entries(f"{_LEASES}/{key[:2]}" if key else _LEASES):
        name = Path(entry.name).name
        of, _, number = name.partition(".")
        if number.isdecimal() and (not key or of == key):
            yield entry.name, int(number)
