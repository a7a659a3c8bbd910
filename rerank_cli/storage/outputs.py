"""Finished files, local or in a bucket: whether one exists, its attributes, and how it takes its final name.

A local file takes its name by a rename, and its attributes are extended attributes. An object appears as a whole, and
its attributes are its metadata.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rerank_cli.display import shown
from rerank_cli.errors import OutputError
from rerank_cli.storage.files import append_to_special, replace_file, writing
from rerank_cli.storage.objects.store import Facts
from rerank_cli.storage.objects.stores import writable
from rerank_cli.storage.paths import final_path, is_special, sync_folder
from rerank_cli.storage.remote import is_remote, refuse_unwritable
from rerank_cli.storage.staging import make_room, tidy

_PREFIX = "user.rerank."
_SEAL = "seal"
_MOST_METADATA = 1900  # bytes; S3 takes 2 KB


def exists(path: str) -> bool:
    """Whether there is a file of that name. OutputError if a bucket does not tell."""
    return _facts(path) is not None if is_remote(path) else final_path(path).exists()


def is_finished(path: str) -> bool:
    """Whether there is a regular file, or an object, of that name."""
    return _facts(path) is not None if is_remote(path) else final_path(path).is_file()


def check_writable(path: str) -> None:
    """Raise UsageError for a remote path that cannot be written, OutputError if its local folder cannot be made."""
    refuse_unwritable(path)
    writable(path)
    with writing(path):
        make_room(path)


def write_whole(path: str, data: bytes) -> None:
    """Write a small file: atomically and durably, or in place for a device or a pipe. Raises OutputError."""
    if is_remote(path):
        store, key = writable(path)
        with writing(path):
            store.put(key, data)
    elif is_special(path):
        append_to_special(path, data)
    else:
        replace_file(final_path(path), data)


def publish(built: Path, path: str, attributes: Mapping[str, str] | None = None) -> None:
    """Give a finished, durable file its final name. Raises OutputError; `built` is kept then."""
    attributes = attributes or {}
    with writing(path):
        if is_remote(path):
            store, key = writable(path)
            store.upload(key, built, _metadata({_SEAL: _sealed(built), **attributes}))
            built.unlink()
            tidy(path)
            return
        _set_extended(built, attributes)
        final = final_path(path)
        os.replace(built, final)  # noqa: PTH105 - the rename must be atomic
        sync_folder(final.parent)


def attributes_of(path: str) -> Mapping[str, str]:
    """The attributes that `publish` gave a file, none if there is no such file or it has none."""
    if is_remote(path):
        found = _facts(path)
        return {name.removeprefix("rerank"): value for name, value in found.attributes.items()} if found else {}
    known: dict[str, str] = {}
    if hasattr(os, "listxattr"):
        with suppress(OSError):
            final = final_path(path)
            for name in os.listxattr(final):
                if name.startswith(_PREFIX):
                    known[name.removeprefix(_PREFIX)] = os.getxattr(final, name).decode(errors="replace")
    return known


def size_of(path: str) -> int | None:
    """The size of a finished file in bytes, None if there is none."""
    if is_remote(path):
        found = _facts(path)
        return found.size if found else None
    final = final_path(path)
    return final.stat().st_size if final.is_file() else None


def identity(built: Path) -> list[int]:
    """Device, inode and size of a file, which its final name does not change."""
    info = built.stat()
    return [info.st_dev, info.st_ino, info.st_size]


def identity_of(path: str) -> list[int] | None:
    """What `identity` gave for the file that now has the final name; None if there is none, or it is not ours."""
    if is_remote(path):
        words = attributes_of(path).get(_SEAL, "").split()
        return [int(word) for word in words] if words and all(map(str.isdigit, words)) else None
    final = final_path(path)
    return identity(final) if final.is_file() else None


def _facts(path: str) -> Facts | None:
    store, key = writable(path)
    try:
        return store.facts(key)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{shown(path, 300)}: cannot be written: {error}") from error


def _sealed(built: Path) -> str:
    return " ".join(map(str, identity(built)))


def _metadata(attributes: Mapping[str, str]) -> dict[str, str]:
    """Attributes under names that every store takes, without those that are too long together."""
    found: dict[str, str] = {}
    for name, value in attributes.items():
        room = _MOST_METADATA - sum(map(len, (*found, *found.values())))
        if value.isascii() and len(value) < room:
            found[f"rerank{name}"] = value
    return found


def _set_extended(path: Path, attributes: Mapping[str, str]) -> None:
    """Those that the file system takes: ext4 has 4 KiB for all of a file."""
    if hasattr(os, "setxattr"):
        for name, value in attributes.items():
            with suppress(OSError):
                os.setxattr(path, _PREFIX + name, value.encode())
