"""Names of files: of a folder, and those that a pattern matches, local or remote."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path

from rerank_cli.errors import InputError
from rerank_cli.storage.objects.remote_file import unreadable
from rerank_cli.storage.objects.store import Store
from rerank_cli.storage.objects.stores import store_of
from rerank_cli.storage.remote import fixed_folder, is_pattern, is_remote, joined, matching, scheme_of


def entries_of(folder: str) -> dict[str, bool] | None:
    """The names in a folder, each with whether it is a file; None if there is no such folder, as on a web server.

    Raises OSError for a local folder that cannot be read, InputError for a remote one.
    """
    if scheme_of(folder) in ("http", "https"):
        return None
    if is_remote(folder):
        below = _below(folder)
        return {name.partition("/")[0]: "/" not in name for name in below} if below else None
    if not Path(folder).is_dir():
        return None
    return {entry.name: entry.is_file() for entry in os.scandir(folder)}


def path_in(folder: str, *names: str) -> str:
    """The path of a file in a folder."""
    return joined(folder, "/".join(names)) if is_remote(folder) else str(Path(folder, *names))


def exists(path: str) -> bool:
    """Whether an input exists. Raises InputError if that cannot be found out."""
    if not is_remote(path):
        return Path(path).exists()
    store, key = store_of(path)
    return _is_there(store, key, path)


def expanded(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths, with the files that remote patterns match in place of these, sorted. Raises InputError."""
    return tuple(found for path in paths for found in (_matches(path) if is_pattern(path) else (path,)))


def matches_of(path: str) -> Sequence[str]:
    """The files that a local or remote pattern matches, sorted; the path itself if it has no wildcards."""
    if is_remote(path):
        return expanded((path,))
    if not any(mark in path for mark in "*?[") or Path(path).exists():
        return [path]
    return sorted(glob(path, recursive=True))  # noqa: PTH207 - a pattern with folders in it


def _matches(pattern: str) -> Sequence[str]:
    store, key = store_of(pattern)
    if _is_there(store, key, pattern):  # a name may have these characters
        return (pattern,)
    folder = fixed_folder(pattern)
    return matching(pattern, (joined(folder, name) for name in _below(folder)))


def _is_there(store: Store, key: str, path: str) -> bool:
    try:
        store.facts(key)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def _below(folder: str) -> list[str]:
    """The names of all files below a remote folder, relative to it. Raises InputError."""
    store, key = store_of(folder)
    prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
    try:
        return [found.removeprefix(prefix) for found, _ in store.listed(prefix) if found != prefix]
    except InputError:
        raise
    except OSError as error:
        raise unreadable(folder, error) from error
