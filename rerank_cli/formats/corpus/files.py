"""A corpus before it is opened: its files, their stamps and field names."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.listing import entries_of, exists, path_in
from rerank_cli.storage.opening import Stamp, not_readable, stamp_of
from rerank_cli.storage.paths import STREAM

_ARROW = (".arrow", ".feather", ".ipc")
_SUFFIXES = frozenset((".jsonl", ".json", ".ndjson", ".tsv", ".csv", ".txt", ".parquet", *_ARROW))
_COMPRESSED = (".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.lz4", ".jsonl.xz")
_BEIR_SUFFIXES = (".jsonl", *_COMPRESSED, ".parquet", ".tsv", ".tsv.gz", ".csv", ".csv.gz", *_ARROW, "")
# Descriptions that `datasets.save_to_disk` puts beside its Arrow files.
_DESCRIPTIONS = ("dataset_info.json", "dataset_dict.json", "state.json")


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus, or queries: the given file or folder, its files with their stamps, and the field names of documents."""

    path: str
    files: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    id_names: tuple[str, ...]
    text_names: tuple[str, ...]

    @classmethod
    def of(cls, path: str, id_names: tuple[str, ...], text_names: tuple[str, ...]) -> Corpus:
        """The corpus at a path. Raises InputError if it has no files, or for a pipe or a device."""
        files = corpus_files(path)
        stamps = tuple(stamp for file in files if (stamp := stamp_of(file)))
        if len(stamps) < len(files):
            raise InputError(f"{shown(path, 300)}: is a pipe or a device (expected a seekable file)")
        return cls(path, files, stamps, id_names, text_names)

    @property
    def size(self) -> int:
        return sum(stamp.size for stamp in self.stamps)

    @property
    def identity(self) -> dict[str, Any]:
        """What the index of this corpus has as its identity, in the form that JSON gives back."""
        both = zip(self.files, self.stamps, strict=True)
        files = [[os.fsencode(Path(path).name).hex(), *asdict(stamp).values()] for path, stamp in both]
        return {"id": list(self.id_names), "text": list(self.text_names), "files": files}


def corpus_files(path: str) -> tuple[str, ...]:
    """The file itself, or the files of a folder sorted by name. Raises InputError if there are none."""
    if path == STREAM:
        raise InputError("a corpus and queries cannot be read from stdin (expected seekable files). Fix: name files")
    try:
        entries = entries_of(path)
        if entries is None:
            return (path,)
        inside = sorted(name for name, is_file in entries.items() if is_file and _is_corpus(name))
    except OSError as error:
        raise not_readable(path, error) from error
    if not inside:
        expected = f"expected {', '.join(sorted(_SUFFIXES))}, also compressed"
        raise InputError(f"{shown(path, 300)}: the folder holds no document files ({expected})")
    return tuple(path_in(path, name) for name in inside)


def _is_corpus(name: str) -> bool:
    """Whether a file is visible and has a known suffix; a compressed file needs no other suffix."""
    stem = name.rpartition(".")[0] if compression_of(name) else name
    known = Path(stem).suffix in _SUFFIXES or (stem != name and not Path(stem).suffix)
    return known and not name.startswith(".") and name not in _DESCRIPTIONS


@dataclass(frozen=True, slots=True)
class BeirFolder:
    """Paths of its files. `qrels` is None if the split has no judgements. `has_own_queries`: `queries` are its own."""

    corpus: str
    queries: str
    qrels: str | None
    has_own_queries: bool


def beir_folder(path: str, split: str = "test") -> BeirFolder:
    """The files of a folder in BEIR layout. Raises InputError if it has no corpus or no queries."""
    entries = entries_of(path)
    if entries is None:
        raise InputError(f"{shown(path, 300)}: is not a folder (expected BEIR layout: corpus.jsonl, queries.jsonl)")

    def first(*stems: str) -> str | None:
        files = (f"{stem}{suffix}" for stem in stems for suffix in _BEIR_SUFFIXES)
        return next((path_in(path, file) for file in files if file in entries), None)

    corpus, queries = first("corpus"), first(f"{split}_queries", "queries")
    if corpus is None or queries is None:
        missing = "queries" if corpus else "corpus"
        raise InputError(f"{shown(path, 300)}: has no {missing}.jsonl (nor .parquet, .tsv or compressed ones)")
    qrels = path_in(path, "qrels", f"{split}.tsv")
    own = Path(queries).name.startswith(f"{split}_queries")
    return BeirFolder(corpus, queries, qrels if exists(qrels) else first(f"{split}_qrels"), own)
