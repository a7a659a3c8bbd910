"""Which files a corpus is made of, and what they are told by."""

from __future__ import annotations

import os
from pathlib import Path

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.opening import Stamp, stamp_of
from rerank_cli.storage.paths import STREAM

_SUFFIXES = frozenset((".jsonl", ".json", ".ndjson", ".tsv", ".txt", ".parquet"))


def corpus_files(path: str) -> tuple[str, ...]:
    """The file, or the files of a folder in order of their names. InputError if there are none."""
    if path == STREAM:
        raise InputError("a corpus and queries cannot come from stdin: they are read at many places. Fix: name files")
    try:
        if not Path(path).is_dir():
            return (path,)
        inside = sorted(entry.name for entry in os.scandir(path) if entry.is_file() and _is_corpus(entry.name))
    except OSError as error:
        raise InputError(f"{shown(path, 300)}: {os.strerror(error.errno or 0)}") from error
    if not inside:
        expected = f"expected {', '.join(sorted(_SUFFIXES))}, also compressed"
        raise InputError(f"{shown(path, 300)}: the folder holds no files of documents ({expected})")
    return tuple(str(Path(path, name)) for name in inside)


def steady_stamp(path: str) -> Stamp:
    """The stamp of a file that can be read at any place; InputError for a pipe."""
    stamp = stamp_of(path)
    if stamp is None:
        raise InputError(f"{shown(path, 300)}: is a pipe or a device (expected a file, to be read at many places)")
    return stamp


def _is_corpus(name: str) -> bool:
    """By its suffix, which may be missing where the one of a compression is there."""
    if name.startswith("."):
        return False
    stem = name.rpartition(".")[0] if compression_of(name) else name
    return Path(stem).suffix in _SUFFIXES or (stem != name and not Path(stem).suffix)
