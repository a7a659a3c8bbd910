"""One run per output at a time, on any machine: an object that is put if it is absent, and renewed as a sign of life.

A lease whose last sign of life is older than `seconds`, by the clock of the store, is taken over; that of a process on
this machine that is gone is taken over at once. Taking over and renewing replace the object only if it is the one that
was read, so that of two processes one fails.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.display import shown
from rerank_cli.errors import OutputError, RefusedError
from rerank_cli.storage.lock import Holder
from rerank_cli.storage.objects.store import Facts, StoreError, WritableStore
from rerank_cli.storage.objects.stores import writable

SECONDS = 60.0
_BEATS = 4  # signs of life in that time
_CLOCK = ".clock"  # an object that is put to read the clock of the store


@dataclass(slots=True)
class Lease:
    """The lock object of an output. `note` is one line for `rerank status`, sent with the next sign of life."""

    path: str
    what: str
    seconds: float = SECONDS
    note: str = ""
    lost: bool = False
    _token: str = field(default_factory=lambda: secrets.token_hex(8))
    _beat: int = 0
    _offset: float | None = None  # from this machine's monotonic clock to that of the store
    _version: str = ""
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def held(self, notify: Callable[[str], None] = lambda _: None) -> Iterator[Lease]:
        """Hold it inside the block, then remove the object. RefusedError that names the other process, OutputError."""
        store, key = writable(self.path)
        try:
            try:
                self._take(store, key, notify)
            finally:
                if self._offset is not None:
                    store.delete([key + _CLOCK])
        except OSError as error:
            raise OutputError(f"{self.what}: cannot be written: {error}") from error
        beating = threading.Thread(target=self._renew, args=(store, key), name="lease", daemon=True)
        beating.start()
        try:
            yield self
        finally:
            self._ended.set()
            beating.join()
            with suppress(OSError, ValueError):
                if not self.lost and _read(store, key)[1]["token"] == self._token:
                    store.delete([key])

    def set_note(self, text: str) -> None:
        self.note = text

    def check(self) -> None:
        """Raise RefusedError if another process has taken the lease over."""
        if self.lost:
            raise RefusedError(f"{self.what}: another process took it over, because this one gave no sign of life")

    def _take(self, store: WritableStore, key: str, notify: Callable[[str], None]) -> None:
        seen: str | None = None
        while not (version := store.put_if_absent(key, self._content())):
            try:
                facts, holder = _read(store, key)
            except FileNotFoundError:
                continue
            except ValueError:
                raise RefusedError(f"{shown(self.path, 300)}: is not a lock of rerank. Fix: another -o") from None
            name = shown(str(holder["holder"]), 200)
            gone = _is_gone(holder)
            if gone is None:
                age = self._now(store, key) - facts.changed
                gone = age > self.seconds
            if gone:
                if version := store.put_if_version(key, self._content(), facts.version):
                    notify(f"{self.what}: takes over from {name}, which is gone")
                    break
                continue
            if _is_gone(holder) is False or seen not in (None, facts.version):
                raise RefusedError(f"{self.what}: being written by {name}. Fix: wait for it, or another -o")
            if seen is None:
                wait = f"waiting for another, at most {self.seconds - age:.0f} s"
                notify(f"{self.what}: is locked by {name}; its last sign of life is {max(0, age):.0f} s old, {wait}")
            seen = facts.version
            time.sleep(min(1.0, self.seconds / 20))
        self._version = version

    def _now(self, store: WritableStore, key: str) -> float:
        """The time by the clock of the store, in seconds since 1970. The store is asked once."""
        if self._offset is None:
            store.put(key + _CLOCK, b"")
            self._offset = store.facts(key + _CLOCK).changed - time.monotonic()
        return time.monotonic() + self._offset

    def _renew(self, store: WritableStore, key: str) -> None:
        while not self._ended.wait(self.seconds / _BEATS):
            # A store that does not answer is asked again: whoever takes over meanwhile is noticed then.
            with suppress(OSError):
                version = store.put_if_version(key, self._content(), self._version)
                if version is None:
                    self.lost = True
                    return
                self._version = version

    def _content(self) -> bytes:
        self._beat += 1
        name = f"process {os.getpid()} on {socket.gethostname()}"
        about = {"holder": name, "machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}
        return orjson.dumps({**about, "token": self._token, "beat": self._beat, "note": self.note})


def holder_of(path: str) -> Holder | None:
    """Who holds the lease now, or held it when it died; None if nobody does. Raises OutputError."""
    store, key = writable(path)
    try:
        _, found = _read(store, key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{shown(path, 300)}: cannot be read: {error}") from error
    if _is_gone(found):
        return None
    return Holder(str(found["holder"]), str(found.get("note", "")))


def _read(store: WritableStore, key: str) -> tuple[Facts, dict[str, Any]]:
    """The object. FileNotFoundError if there is none, ValueError if it is not a lease."""
    for _ in range(20):
        facts = store.facts(key)
        try:
            found = orjson.loads(bytes(store.read(key, 0, facts.size, facts.version)))
        except StoreError:
            continue  # renewed meanwhile
        if not isinstance(found, dict) or "token" not in found or "holder" not in found:
            raise ValueError("not a lease")
        return facts, found
    raise StoreError("changes all the time")


def _machine() -> str:
    """Identifies the system that process numbers belong to, until it is started again; "" where that is not known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()} {socket.gethostname()}"
    return ""


def _started(process: int) -> str:
    """When a process was started, as the system states it; "" if there is none."""
    with suppress(OSError, IndexError):
        return (
            Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        )
    return ""


def _is_gone(holder: dict[str, Any]) -> bool | None:
    """Whether a process has ended; None if it was on another machine, or if its system does not tell."""
    if not _machine() or holder.get("machine") != _machine() or not holder.get("started"):
        return None
    return _started(int(holder["pid"])) != str(holder["started"])
