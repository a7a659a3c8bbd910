"""Scores on disk across runs: 16-byte keys to a few bytes, in one SQLite file that several processes may use at once.

Knows nothing of pairs. Once it is open it never stops a run: what cannot be read is unknown, what cannot be written is
let go, and either is said once. Each batch of entries is one transaction, so that a kill leaves whole ones.
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

_MARK = 0x52524B43  # "RRKC", which SQLite keeps in the file's head for whoever made it
_VERSION = 1
_AT_ONCE = 256
_LOOK_UP = f"SELECT key, value FROM scores WHERE key IN ({','.join('?' * _AT_ONCE)})"
_PATIENCE = 5.0
_PAGES_IN_MEMORY = "PRAGMA cache_size = -32768"  # KiB

_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR))  # the last: no such table
_BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))

Entry = tuple[bytes, bytes]


class CacheFile:
    """An open file, or what is left of one that gave up. Any method may be called on any thread.

    `wait` is how many seconds another writer is waited for.
    """

    def __init__(self, path: str, notify: Callable[[str], None] = lambda _: None, wait: float = _PATIENCE) -> None:
        """RefusedError, before anything is written, where the file is damaged or something else."""
        self.path = path
        self.entries = 0
        self._notify = notify
        self._told: set[str] = set()
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._open(wait)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries there are of these."""
        found: dict[bytes, bytes] = {}
        with self._reading:
            if self._reader is None or not keys:
                return found
            ordered = sorted(keys)  # neighbours lie on one page
            ordered += ordered[-1:] * (-len(ordered) % _AT_ONCE)
            try:
                for start in range(0, len(ordered), _AT_ONCE):
                    found.update(self._reader.execute(_LOOK_UP, ordered[start : start + _AT_ONCE]))
            except sqlite3.Error as error:
                self._drop_reader()
                self._tell(f"{_reason(error)}, going on without it{_way_out(error)}")
        return found

    def add(self, entries: Iterable[Entry]) -> None:
        """Keep these, each unless there is one of its key already."""
        with self._writing:
            writer = self._writer
            if writer is None:
                return
            try:
                writer.execute("BEGIN IMMEDIATE")
                before = writer.total_changes
                writer.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", sorted(entries))
                new = writer.total_changes - before
                writer.execute("UPDATE about SET entries = entries + ?", (new,))
                writer.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
                self._go_on_without(writer, error)

    def give_up(self) -> None:
        """Read and write no more: an entry was not what had been put there."""
        with self._reading, self._writing:
            self._drop_reader()
            self._drop_writer()
        self._tell("damaged, going on without it. Fix: delete it")

    def close(self) -> None:
        """Count the entries and let go of the file."""
        with self._reading, self._writing:
            with suppress(sqlite3.Error):
                self.entries = _entries(self._reader) if self._reader else self.entries
            self._drop_reader()
            self._drop_writer()

    def _open(self, wait: float) -> None:
        final, trouble = final_path(self.path), "it is not ours to write"
        try:
            if not final.exists() or _may_write(final):
                try:
                    self._reader = _prepared(final, wait)
                    self._writer = _connect(_uri(final), wait)
                    return
                except sqlite3.Error as error:
                    if _code(error) in _DAMAGED:
                        raise
                    trouble = _reason(error)
            self._reader = _read_only(final, wait)
            self._tell(f"{trouble}, new scores will not be in it")
        except _Foreign as error:
            raise _refused(self.path, str(error)) from error
        except sqlite3.Error as error:
            if _code(error) in _DAMAGED:
                raise _refused(self.path, "is no score cache of ours, or damaged") from error
            self._tell(f"{_reason(error)}, going on without it")

    def _go_on_without(self, writer: sqlite3.Connection, error: sqlite3.Error) -> None:
        """Another writer's turn may end, so that later entries find room; nothing else mends itself."""
        if _code(error) in _BUSY:
            writer.execute("PRAGMA busy_timeout = 0")
            self._tell("another process keeps it busy, scores of this run may be missing in it")
        else:
            self._drop_writer()
            self._tell(f"{_reason(error)}, new scores will not be in it{_way_out(error)}")

    def _drop_reader(self) -> None:
        self._reader = _close(self._reader)

    def _drop_writer(self) -> None:
        self._writer = _close(self._writer)

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._notify(f"--cache {self.path}: {what}")


class _Foreign(Exception):
    """A file of somebody else's, or of another version."""


def _prepared(path: Path, wait: float) -> sqlite3.Connection:
    """The file with its tables, made if there is none. Two processes may come at once."""
    connection = _connect(_uri(path), wait)
    try:
        _refuse_foreign(connection)
        end = time.monotonic() + wait
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.Error as error:  # the change of mode does not wait by itself
                if _code(error) not in _BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
        if _is_new(connection):
            connection.execute("BEGIN IMMEDIATE")
            if _is_new(connection):  # still, now that it is our turn
                _lay_out(connection)
            connection.execute("COMMIT")
        _look_around(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _lay_out(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE scores (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE about (entries INTEGER NOT NULL)")
    connection.execute("INSERT INTO about VALUES (0)")
    connection.execute(f"PRAGMA application_id = {_MARK}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _read_only(path: Path, wait: float) -> sqlite3.Connection:
    """A file that is not ours to write. Where its folder takes no lock files either it is read as it lies there."""
    try:
        return _checked(_uri(path, "?mode=ro"), wait)
    except sqlite3.Error as error:
        if _code(error) in _DAMAGED:
            raise
        return _checked(_uri(path, "?immutable=1"), wait)


def _checked(uri: str, wait: float) -> sqlite3.Connection:
    connection = _connect(uri, wait)
    try:
        _refuse_foreign(connection)
        _look_around(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str, wait: float) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, timeout=wait, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(_PAGES_IN_MEMORY)
    return connection


def _uri(path: Path, mode: str = "") -> str:
    return f"file:{quote(str(path))}{mode}"


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    if _is_new(connection):
        return
    if _number(connection, "PRAGMA application_id") != _MARK:
        raise _Foreign("is no score cache of ours")
    if _number(connection, "PRAGMA user_version") != _VERSION:
        raise _Foreign("is a score cache of another version of rerank")


def _is_new(connection: sqlite3.Connection) -> bool:
    """Has the file neither mark nor tables?"""
    marked = _number(connection, "PRAGMA application_id") != 0
    return not marked and _number(connection, "SELECT count(*) FROM sqlite_master") == 0


def _look_around(connection: sqlite3.Connection) -> None:
    """Read what every run reads, so that plain damage shows before anything costs time."""
    _entries(connection)
    connection.execute("SELECT key, value FROM scores LIMIT 1").fetchone()


def _entries(connection: sqlite3.Connection) -> int:
    return _number(connection, "SELECT entries FROM about")


def _number(connection: sqlite3.Connection, query: str) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def _close(connection: sqlite3.Connection | None) -> sqlite3.Connection | None:
    """Nothing, once it is closed."""
    if connection is not None:
        with suppress(sqlite3.Error):
            connection.close()
    return None


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; extended ones carry more in the upper bits."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _reason(error: sqlite3.Error) -> str:
    return "damaged" if _code(error) in _DAMAGED else str(error)


def _way_out(error: sqlite3.Error) -> str:
    return ". Fix: delete it" if _code(error) in _DAMAGED else ""


def _refused(path: str, what: str) -> RefusedError:
    return RefusedError(f"{path}: {what}. Fix: another --cache, or delete it")
