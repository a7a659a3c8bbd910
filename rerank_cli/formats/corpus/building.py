"""A corpus is opened with the index that lies beside it, or one that is made now.

That of a large corpus is kept, as NAME.rerank-index beside it or in a folder that was named, and made again when a file
of the corpus changed or the index was damaged. It appears whole or not at all, and is made once where several runs want
it. That of a small corpus, which takes less than a second, is made each time in a temporary file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from rerank_cli.display import shown
from rerank_cli.errors import InputError, OutputError
from rerank_cli.formats.corpus.addressing import Wanted, addressed
from rerank_cli.formats.corpus.documents import Documents
from rerank_cli.formats.corpus.files import corpus_files, steady_stamp
from rerank_cli.formats.corpus.index import MOST_FILES, Damaged, IndexWriter
from rerank_cli.storage.files import writing
from rerank_cli.storage.opening import Stamp
from rerank_cli.storage.paths import successor_of, sync_folder

SUFFIX = ".rerank-index"
SMALL_BYTES = 64 << 20
_ONE_PART_BYTES = 256 << 20
_FIX = "Fix: --index-dir DIR, for a folder that can be written to"

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is to be opened: a file or a folder, the files it stands for and their stamps, and the names to look for."""

    path: str
    files: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    wanted: Wanted

    @classmethod
    def of(cls, path: str, wanted: Wanted) -> Corpus:
        """The files of a path. Raises InputError if there are none, or for a pipe."""
        files = corpus_files(path)
        return cls(path, files, tuple(steady_stamp(file) for file in files), wanted)

    @property
    def size(self) -> int:
        return sum(stamp.size for stamp in self.stamps)

    @property
    def identity(self) -> dict[str, Any]:
        """What an index must have been made of to be one of this corpus, as it is read back from JSON."""
        files = [[os.fsencode(Path(path).name).hex(), *asdict(stamp).values()] for path, stamp in self._files()]
        return {"id": list(self.wanted.id), "text": list(self.wanted.text), "files": files}

    def documents(self, index: BinaryIO) -> Documents:
        return Documents(self.files, self.stamps, self.wanted.id, index)

    def _files(self) -> Sequence[tuple[str, Stamp]]:
        return list(zip(self.files, self.stamps, strict=True))


def open_in_memory(corpus: Corpus) -> Documents:
    """With an index that goes when the process does."""
    with ExitStack() as stack, writing(tempfile.gettempdir()):
        file = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
        _build(corpus, file, None)
        stack.pop_all()
    return corpus.documents(file)


def open_corpus(corpus: Corpus, folder: str | None, notify: Notify) -> Documents:
    """With the index that lies beside the corpus, or in `folder`; it is made if need be."""
    if folder is None and corpus.size <= SMALL_BYTES:
        return open_in_memory(corpus)
    target = _place(corpus, folder)
    return _fresh(corpus, target, notify) or _made(corpus, target, notify)


def _place(corpus: Corpus, folder: str | None) -> Path:
    path = Path(os.path.realpath(corpus.path))
    if folder is None:
        return path.with_name(path.name + SUFFIX)
    if not Path(folder).is_dir():
        raise OutputError(f"{shown(folder, 300)}: is no folder. Fix: mkdir -p {shown(folder, 300)}")
    digest = hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
    return Path(folder, f"{path.name}-{digest}{SUFFIX}")


def _fresh(corpus: Corpus, target: Path, notify: Notify) -> Documents | None:
    """The documents by the index that is there, None if it is of no use any more."""
    try:
        file = open(target, "rb")  # noqa: SIM115 - open as long as the documents
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{shown(str(target), 300)}: {error.strerror}. {_FIX}") from error
    try:
        documents = corpus.documents(file)
    except Damaged as error:
        file.close()
        notify(f"{shown(str(target), 300)}: is damaged ({error}), and made again")
        return None
    if documents.index.about["identity"] == corpus.identity:
        return documents
    documents.close()
    notify(f"{shown(str(target), 300)}: is of other files or fields than those given now, and made again")
    return None


def _made(corpus: Corpus, target: Path, notify: Notify) -> Documents:
    """Make the index under another name, and wait where somebody else is making it."""
    successor = successor_of(target)
    while True:
        try:
            file = cast("BinaryIO", os.fdopen(os.open(successor, os.O_RDWR | os.O_CREAT, 0o644), "r+b"))
        except OSError as error:
            raise OutputError(f"{shown(str(successor), 300)}: cannot be written: {error.strerror}. {_FIX}") from error
        try:
            with writing(str(target)):
                _lock(file, target, notify)
                if _is_at(file, successor):
                    _write(corpus, target, file, notify)
                    fcntl.flock(file, fcntl.LOCK_UN)
                    return corpus.documents(file)
        except BaseException:
            file.close()
            raise
        file.close()
        if documents := _fresh(corpus, target, notify):
            return documents


def _lock(file: BinaryIO, target: Path, notify: Notify) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        notify(f"{shown(str(target), 300)}: is being made by another run, waiting for it")
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Is it still the file of this name? Whoever held the lock before may have given it its final name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _write(corpus: Corpus, target: Path, file: BinaryIO, notify: Notify) -> None:
    successor = successor_of(target)
    begun = time.monotonic()
    notify(f"indexing {shown(corpus.path, 300)} ({corpus.size / 1e9:,.1f} GB), once: {shown(str(target), 300)}")
    try:
        file.truncate(0)
        count = _build(corpus, file, str(target.parent))
        file.flush()
        os.fsync(file.fileno())
        os.replace(successor, target)  # noqa: PTH105 - at once or not at all
        sync_folder(target.parent)
    except BaseException:
        successor.unlink(missing_ok=True)
        raise
    notify(f"indexed {count:,} documents in {time.monotonic() - begun:,.0f} s")


def _build(corpus: Corpus, file: BinaryIO, folder: str | None) -> int:
    """Write the index of all files; the number of documents in it, which is not nothing."""
    if len(corpus.files) > MOST_FILES:
        raise InputError(f"{shown(corpus.path, 300)}: has too many files (got {len(corpus.files):,})")
    left_out, reason, lines = 0, "", []
    with closing(IndexWriter(file, folder, *((1,) if corpus.size <= _ONE_PART_BYTES else ()))) as index:
        for number, path in enumerate(corpus.files):
            how, documents = addressed(path, corpus.wanted, file)
            lines.append(asdict(how))
            for document in documents:
                if document.problem:
                    left_out += 1
                    reason = reason or f"{shown(path, 300)}:{document.line}: {document.problem}"
                else:
                    index.add(document.key, number, document.offset, document.length)
        index.finish({"identity": corpus.identity, "lines": lines, "left_out": left_out, "reason": reason})
        if not index.count:
            first = f"{left_out:,} bad lines, the first: {reason}" if left_out else "got an empty file"
            raise InputError(f"{shown(corpus.path, 300)}: holds no documents ({first})")
        return index.count
