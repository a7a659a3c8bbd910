"""Which files a corpus is made of, and what they are told by."""

from __future__ import annotations

import os
from dataclasses import dataclass
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


_FORMS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.lz4", ".parquet", ".tsv", ".tsv.gz", "")


@dataclass(frozen=True, slots=True)
class BeirFolder:
    """Paths of its parts; `qrels` is None where there are no judgements for the split."""

    corpus: str
    queries: str
    qrels: str | None


def beir_folder(path: str, split: str = "test") -> BeirFolder:
    """The parts of a folder. InputError if it has no corpus or no queries."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{shown(path, 300)}: is no folder (expected BEIR's layout: corpus.jsonl, queries.jsonl)")
    qrels = [folder / "qrels" / f"{split}.tsv", *_forms(folder, f"{split}_qrels")]
    return BeirFolder(
        _part(folder, "corpus"),
        _part(folder, f"{split}_queries", "queries"),
        next((str(file) for file in qrels if file.exists()), None),
    )


def _part(folder: Path, *names: str) -> str:
    found = next((file for name in names for file in _forms(folder, name) if file.exists()), None)
    if found is None:
        raise InputError(f"{shown(str(folder), 300)}: has no {names[-1]}.jsonl (nor .parquet, .tsv or compressed ones)")
    return str(found)


def _forms(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{form}" for form in _FORMS]
