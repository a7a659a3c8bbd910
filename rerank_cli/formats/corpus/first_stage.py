"""The run of a first stage: made once, from queries and corpus, as a TREC file that is read like any other run.

Its tag is a hash of what it was made from, so a run that is up to date is used again, as by a rerank run that is
resumed. It is written under another name and renamed. The same queries, corpus and options give the same bytes.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from rerank_cli.display import counted, shown
from rerank_cli.errors import BadRecord, InputError, RefusedError
from rerank_cli.formats.corpus.joining import Side
from rerank_cli.formats.options import Bm25, ById, InputOptions
from rerank_cli.formats.runs.bm25 import Bm25Index, is_unspaced
from rerank_cli.formats.shapes.documents import full_text
from rerank_cli.formats.shapes.requests import find_query
from rerank_cli.records import Json
from rerank_cli.storage.files import writing
from rerank_cli.storage.paths import STREAM, final_path, is_open_at, is_special, successor_of, sync_folder

SUFFIX = ".bm25.trec"
_FIX_ID = "Fix: ids without white space, or --run with a run in JSON lines"
_LOOK = 1000
_TAG = "bm25-"


def temporary_run() -> str:
    """A path for the run of a first stage that nothing else has."""
    return str(Path(tempfile.gettempdir(), f"rerank-{secrets.token_hex(8)}{SUFFIX}"))


def kept_beside(options: InputOptions, output: str) -> InputOptions:
    """The options with the first stage's run in a file beside the output, if there is one and its output is a file."""
    given = options.by_id
    if given is None or given.first_stage is None or not output or output == STREAM or is_special(output):
        return options
    path = final_path(output)
    stage = replace(given.first_stage, temporary=False)
    return replace(options, paths=(str(path.with_name(path.name + SUFFIX)),), by_id=replace(given, first_stage=stage))


def make_run(
    path: str,
    given: ById,
    stage: Bm25,
    sides: tuple[Side, Side],
    made_from: Json,
    wanted: Callable[[str], bool],
    notify: Callable[[str], None],
) -> None:
    """Make the run of the `wanted` queries, unless the file has it already; `made_from` identifies queries and corpus.

    Raises InputError, UsageError if bm25s is not installed, and RefusedError if another file is in the way.
    """
    options = asdict(stage) | {"temporary": None, "judged": bool(given.judged)}
    content = orjson.dumps([options, made_from], option=orjson.OPT_SORT_KEYS)
    tag = _TAG + hashlib.blake2b(content, digest_size=8).hexdigest()
    if (found := _tag_of(path)) == tag:
        return
    if found is not None and not found.startswith(_TAG):
        what = "would hold the run of --first-stage, and is something else"
        raise RefusedError(f"{shown(path, 300)}: {what}. Fix: move it, or another -o")
    begun = time.monotonic()
    with _successor(path, lambda: _tag_of(path) == tag, notify) as file:
        if file is None:
            return
        documents, count = _retrieve(stage, sides, tag, wanted, notify, file)
    if stage.temporary:
        atexit.register(Path(path).unlink, missing_ok=True)
    where = "" if stage.temporary else f": {shown(path, 300)}"
    what = f"{counted(documents, 'document')} for {counted(count, 'query')}"
    notify(f"BM25 over {what} in {time.monotonic() - begun:,.0f} s{where}")


def _retrieve(
    stage: Bm25,
    sides: tuple[Side, Side],
    tag: str,
    wanted: Callable[[str], bool],
    notify: Callable[[str], None],
    file: BinaryIO,
) -> tuple[int, int]:
    """Write the run; returns the numbers of documents and of queries in it."""
    queries, corpus = sides
    keys: list[str] = []
    index = Bm25Index(_texts(corpus, keys, notify), stage, corpus.name)
    count = 0
    for listed, record in queries.documents.each():
        if not wanted(listed.key):
            continue
        best = list(index.best(_query(record, queries)))
        query = _one_word(listed.key, "query", queries) if best else ""
        rows = (
            f"{query} Q0 {_one_word(keys[number], 'document', corpus)} {rank} {score:.6f} {tag}\n"
            for rank, (number, score) in enumerate(best, 1)
        )
        with writing(str(file.name)):
            file.write("".join(rows).encode())
        count += bool(best)
    if not count:
        raise InputError(f"{queries.name}: no query shares a word with {corpus.name} (expected some that do)")
    return len(keys), count


def _texts(corpus: Side, keys: list[str], notify: Callable[[str], None]) -> Iterator[str]:
    """The texts of the documents that have one; their ids are added to `keys`."""
    first: list[str] = []
    for listed, record in corpus.documents.each():
        try:
            text = full_text(record, corpus.fields)
        except BadRecord:
            continue  # it is reported where a run names it, and no word leads to it here
        if len(first) < _LOOK:
            first.append(text)
            if len(first) == _LOOK:
                _warn(first, corpus, notify)
        keys.append(listed.key)
        yield text
    if len(first) < _LOOK:
        _warn(first, corpus, notify)


def _warn(texts: list[str], corpus: Side, notify: Callable[[str], None]) -> None:
    if is_unspaced(texts):
        what = (
            "most of its letters are of a script without spaces between words, where BM25 finds few of the candidates"
        )
        notify(f"{corpus.name}: {what}. Fix: --run, with the run of a search engine for this language")


def _query(record: dict[str, Json], queries: Side) -> str:
    """The text of a query; "" for one without, which is reported where it is answered."""
    try:
        return str(find_query(record, queries.fields).value)
    except BadRecord:
        return ""


def _one_word(key: str, what: str, side: Side) -> str:
    if len(key.split()) == 1 and key == key.strip() and "\0" not in key:
        return key
    raise InputError(f"{side.name}: the {what} id {shown(repr(key))} cannot be used in a TREC run. {_FIX_ID}")


def _tag_of(path: str) -> str | None:
    """The tag in the first line of a run; None without a file or for an empty one, "" for something else."""
    try:
        with open(path, "rb") as file:
            line = file.readline(1 << 16)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{shown(path, 300)}: cannot be read: {error.strerror}") from error
    cells = line.decode("utf-8", "replace").split()
    return None if not line else cells[5] if len(cells) == 6 else ""


@contextmanager
def _successor(path: str, is_made: Callable[[], bool], notify: Callable[[str], None]) -> Iterator[BinaryIO | None]:
    """A locked file that gets the name `path` when the block ends, unless it ends with an error; then it is removed.

    Another process that makes the run meanwhile is waited for; None if `is_made` is true then.
    """
    target = Path(path)
    successor = successor_of(target)
    with ExitStack() as stack:
        while True:
            with writing(path):
                target.parent.mkdir(parents=True, exist_ok=True)
                file = cast("BinaryIO", stack.enter_context(open(successor, "a+b")))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    notify(f"{shown(path, 300)}: is being made by another run; waiting for it")
                    fcntl.flock(file, fcntl.LOCK_EX)
            if is_open_at(file.fileno(), successor):  # else the previous holder has renamed or removed it
                break
        try:
            if is_made():
                successor.unlink()
                yield None
                return
            file.truncate(0)
            yield file
            with writing(path):
                file.flush()
                os.fsync(file.fileno())
                os.replace(successor, target)  # noqa: PTH105 - the rename must be atomic
                sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                successor.unlink(missing_ok=True)
            raise
