"""Opening a corpus: with its index on disk, built first if there is none.

The index of a large corpus is kept as NAME.rerank-index beside it or in a given folder; that of a remote one, which has
the texts too, in the folder of `storage/staging.py`. It is rebuilt if a file of the
corpus changed or the index is damaged. It is written under another name and renamed; a lock makes concurrent runs build
it once. The index of a small corpus takes less than a second and is built each time, in a temporary file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

from rerank_cli.display import shown
from rerank_cli.errors import InputError, OutputError
from rerank_cli.formats.corpus.addressing import document_lines
from rerank_cli.formats.corpus.dataset import DatasetDocuments, is_dataset
from rerank_cli.formats.corpus.documents import Documents, DocumentSource
from rerank_cli.formats.corpus.files import Corpus
from rerank_cli.formats.corpus.index import MOST_FILES, PARTS, IndexWriter, InvalidIndex
from rerank_cli.storage.files import writing
from rerank_cli.storage.paths import final_path, is_open_at, successor_of, sync_folder
from rerank_cli.storage.remote import is_remote
from rerank_cli.storage.staging import make_room

SUFFIX = ".rerank-index"
SMALL_BYTES = 64 << 20
_ONE_PART_BYTES = 256 << 20
_FIX = "Fix: --index-dir DIR, with a writable folder"


def open_in_memory(corpus: Corpus) -> Documents:
    """Open with an index in an unnamed temporary file, which is removed when the process ends."""
    with writing(tempfile.gettempdir()), ExitStack() as stack:
        file = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
        _build(corpus, file, None)
        stack.pop_all()
    return Documents(corpus, file)


def open_corpus(corpus: Corpus, folder: str | None, notify: Callable[[str], None]) -> DocumentSource:
    """Open with the index beside the corpus or in `folder`, built if needed. Raises InputError or OutputError.

    A set of ir_datasets has its own index.
    """
    if is_dataset(corpus.path):
        return DatasetDocuments(corpus.path)
    if folder is None and corpus.size <= SMALL_BYTES:
        return open_in_memory(corpus)
    path = final_path(corpus.path)
    target = path.with_name(path.name + SUFFIX)
    if folder is None and is_remote(corpus.path):
        with writing(corpus.path):
            make_room(corpus.path)
    if folder is not None:
        if not Path(folder).is_dir():
            raise OutputError(f"{shown(folder, 300)}: is not a folder. Fix: mkdir -p {shown(folder, 300)}")
        named = corpus.path if is_remote(corpus.path) else path
        digest = hashlib.blake2b(os.fsencode(named), digest_size=6).hexdigest()
        target = Path(folder, f"{path.name}-{digest}{SUFFIX}")
    return _existing(corpus, target, notify) or _built(corpus, target, notify)


def _existing(corpus: Corpus, target: Path, notify: Callable[[str], None]) -> Documents | None:
    """Open with the index on disk; None if there is none, or it is damaged or out of date."""
    name = shown(str(target), 300)
    try:
        file = open(target, "rb")  # noqa: SIM115 - open as long as the documents
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}. {_FIX}") from error
    try:
        return Documents(corpus, file)
    except InvalidIndex as error:
        file.close()
        notify(f"{name}: {error}; building it again")
        return None


def _built(corpus: Corpus, target: Path, notify: Callable[[str], None]) -> Documents:
    """Build the index and open with it. If another process is building it, wait and use that index."""
    successor = successor_of(target)
    while True:
        try:
            file = cast("BinaryIO", os.fdopen(os.open(successor, os.O_RDWR | os.O_CREAT, 0o644), "r+b"))
        except OSError as error:
            raise OutputError(f"{shown(str(successor), 300)}: cannot be written: {error.strerror}. {_FIX}") from error
        with writing(str(target)), ExitStack() as stack:
            stack.enter_context(file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notify(f"{shown(str(target), 300)}: is being built by another run; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            # Otherwise the previous holder of the lock has renamed or removed the file.
            if is_open_at(file.fileno(), successor):
                _write(corpus, target, file, notify)
                fcntl.flock(file, fcntl.LOCK_UN)
                documents = Documents(corpus, file)
                stack.pop_all()
                return documents
        if existing := _existing(corpus, target, notify):
            return existing


def _write(corpus: Corpus, target: Path, file: BinaryIO, notify: Callable[[str], None]) -> None:
    """Write the index to the locked file and rename that to `target`."""
    successor = successor_of(target)
    begun = time.monotonic()
    notify(f"indexing {shown(corpus.path, 300)} ({corpus.size / 1e9:,.1f} GB), once: {shown(str(target), 300)}")
    try:
        file.truncate(0)
        count = _build(corpus, file, str(target.parent))
        file.flush()
        os.fsync(file.fileno())
        os.replace(successor, target)  # noqa: PTH105 - the rename must be atomic
        sync_folder(target.parent)
    except BaseException:
        successor.unlink(missing_ok=True)
        raise
    notify(f"indexed {count:,} documents in {time.monotonic() - begun:,.0f} s")


def _build(corpus: Corpus, file: BinaryIO, folder: str | None) -> int:
    """Write the index of all files; returns the number of documents. Raises InputError if there are none."""
    if len(corpus.files) > MOST_FILES:
        raise InputError(f"{shown(corpus.path, 300)}: has too many files (got {len(corpus.files):,})")
    left_out, reason, formats = 0, "", []
    with closing(IndexWriter(file, folder, 1 if corpus.size <= _ONE_PART_BYTES else PARTS)) as index:
        for number, path in enumerate(corpus.files):
            line_format, documents = document_lines(path, corpus, file)
            formats.append(asdict(line_format))
            for document in documents:
                if document.problem:
                    left_out += 1
                    reason = reason or f"{shown(path, 300)}:{document.line}: {document.problem}"
                else:
                    index.add(document.key, number, document.offset, document.length)
        index.finish({"identity": corpus.identity, "lines": formats, "left_out": left_out, "reason": reason})
        if not index.count:
            first = f"{left_out:,} bad lines, the first: {reason}" if left_out else "got an empty file"
            raise InputError(f"{shown(corpus.path, 300)}: holds no documents ({first})")
        return index.count
