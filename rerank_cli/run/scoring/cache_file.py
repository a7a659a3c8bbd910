"""Scores on disk, shared by runs: 16-byte keys to a few bytes, in one SQLite file that several processes may use.

Once open, the file never stops a run: entries that cannot be read are missing, entries that cannot be written are
dropped, and each problem is reported once. A batch of entries is one transaction, so a kill leaves complete batches.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from rerank_cli.errors import RefusedError
from rerank_cli.storage.paths import final_path

_APPLICATION = 0x52524B43  # "RRKC", stored in the file header as SQLite's application id
_VERSION = 1
_SCHEMA = (
    "CREATE TABLE scores (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE about (entries INTEGER NOT NULL)",
    "INSERT INTO about VALUES (0)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)
_KEYS = 256  # in one SELECT
_LOOK_UP = f"SELECT key, value FROM scores WHERE key IN ({','.join('?' * _KEYS)})"
_ENTRIES = "SELECT entries FROM about"
_CACHE = "PRAGMA cache_size = -32768"  # pages in memory, in KiB
_WAIT = 5.0

_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR))  # the last: a missing table
_BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))


class CacheFile:
    """A cache file; thread-safe. Calls wait up to `wait` seconds for another process that writes."""

    def __init__(self, path: str, notify: Callable[[str], None] = lambda _: None, wait: float = _WAIT) -> None:
        """Raises RefusedError, before anything is written, if the file is damaged or is not a score cache."""
        self.path = path
        self.entries = 0
        self._notify = notify
        self._warned: set[str] = set()
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        try:
            self._open(wait)
        except sqlite3.Error as error:
            if _code(error) in _DAMAGED:
                raise self._refused("not a score cache of rerank, or damaged") from error
            self._warn(f"{error}, the run continues without it")

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries of these keys, as far as they exist."""
        found: dict[bytes, bytes] = {}
        with self._reading:
            if self._reader is None or not keys:
                return found
            ordered = sorted(keys)  # neighbours share a page
            ordered += ordered[-1:] * (-len(ordered) % _KEYS)
            try:
                for start in range(0, len(ordered), _KEYS):
                    found.update(self._reader.execute(_LOOK_UP, ordered[start : start + _KEYS]))
            except sqlite3.Error as error:
                self._reader.close()
                self._reader = None
                self._warn_of(error, "the run continues without it")
        return found

    def add(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Store entries; an entry whose key exists is ignored."""
        with self._writing:
            writer = self._writer
            if writer is None:
                return
            try:
                writer.execute("BEGIN IMMEDIATE")
                before = writer.total_changes
                writer.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", sorted(entries))
                writer.execute("UPDATE about SET entries = entries + ?", (writer.total_changes - before,))
                writer.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
                if _code(error) in _BUSY:  # may succeed with later entries, if the other process ends its transaction
                    writer.execute("PRAGMA busy_timeout = 0")
                    self._warn("locked by another process, some scores of this run may not be stored in it")
                else:
                    writer.close()
                    self._writer = None
                    self._warn_of(error, "new scores will not be stored in it")

    def give_up(self) -> None:
        """Stop to read and write, because an entry has a wrong checksum."""
        with self._reading, self._writing:
            self._drop()
        self._warn("damaged, the run continues without it. Fix: delete it")

    def close(self) -> None:
        """Set `entries` to the number of entries in the file, and close it."""
        with self._reading, self._writing:
            with suppress(sqlite3.Error):
                self.entries = _number(self._reader, _ENTRIES) if self._reader else self.entries
            self._drop()

    def _drop(self) -> None:
        for connection in filter(None, (self._reader, self._writer)):
            connection.close()
        self._reader = self._writer = None

    def _open(self, wait: float) -> None:
        path, problem = final_path(self.path), "not writable"
        uri = f"file:{quote(str(path))}"
        if not path.exists() or _may_write(path):
            try:
                self._reader = self._connected(uri, wait, create=True)
                self._writer = _connect(uri, wait)
                return
            except sqlite3.Error as error:
                if _code(error) in _DAMAGED:
                    raise
                problem = str(error)
        try:
            self._reader = self._connected(f"{uri}?mode=ro", wait)
        except sqlite3.Error as error:
            if _code(error) in _DAMAGED:
                raise
            self._reader = self._connected(f"{uri}?immutable=1", wait)  # its folder does not even take lock files
        self._warn(f"{problem}, new scores will not be stored in it")

    def _connected(self, uri: str, wait: float, *, create: bool = False) -> sqlite3.Connection:
        """A connection to a score cache, which is made if it does not exist; RefusedError for another database."""
        connection = _connect(uri, wait)
        try:
            if not _is_new(connection):
                if _number(connection, "PRAGMA application_id") != _APPLICATION:
                    raise self._refused("not a score cache of rerank")
                if _number(connection, "PRAGMA user_version") != _VERSION:
                    raise self._refused("a score cache of another version of rerank")
            if create:
                _create(connection, wait)
            _number(connection, _ENTRIES)  # reads what every run reads, so that damage is found before the model loads
            connection.execute("SELECT key, value FROM scores LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _refused(self, what: str) -> RefusedError:
        return RefusedError(f"{self.path}: {what}. Fix: another --cache, or delete it")

    def _warn_of(self, error: sqlite3.Error, effect: str) -> None:
        damaged = _code(error) in _DAMAGED
        self._warn(f"damaged, {effect}. Fix: delete it" if damaged else f"{error}, {effect}")

    def _warn(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._notify(f"--cache {self.path}: {what}")


def _create(connection: sqlite3.Connection, wait: float) -> None:
    """Switch to WAL mode, create the tables of a new file. Another process may do the same at the same time."""
    end = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.Error as error:  # this statement ignores SQLite's own timeout
            if _code(error) not in _BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
    if _is_new(connection):
        connection.execute("BEGIN IMMEDIATE")
        if _is_new(connection):  # still new, now that this process has the write lock
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")


def _connect(uri: str, wait: float) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, timeout=wait, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(_CACHE)
    return connection


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether the file has neither an application id nor tables."""
    marked = _number(connection, "PRAGMA application_id") != 0
    return not marked and _number(connection, "SELECT count(*) FROM sqlite_master") == 0


def _number(connection: sqlite3.Connection, query: str) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; the upper bits of an extended code are dropped."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
