"""Sets of ir_datasets as files: queries, judgements and scored documents are copied, the documents stay where they are.

A set's folder is below that of `storage/staging.py`. Its files are replaced only if their content changes, so that they
identify the set in checkpoints as other inputs do. `corpus.ir_datasets` names the set whose documents are looked up in
the store of ir_datasets (`DatasetDocuments`). Needs the extra `datasets`.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.display import shown
from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats.corpus.documents import Found, Listed
from rerank_cli.formats.shapes.fields import TEXT
from rerank_cli.records import Json
from rerank_cli.storage.files import writing
from rerank_cli.storage.staging import state_folder

CORPUS_SUFFIX = ".ir_datasets"
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """Paths of the files of a set; those that were not asked for are empty."""

    queries: str = ""
    corpus: str = ""
    qrels: str = ""
    run: str = ""


def dataset_files(
    name: str, *, texts: bool = False, qrels: bool = False, run: bool = False, judged: bool = False
) -> DatasetFiles:
    """The files of a set, downloaded by ir_datasets where it has not done so.

    `texts`: queries and corpus; `qrels` and `run` (its scored documents) must be there; `judged`: qrels if it has them.
    Raises UsageError for a set that is not known or lacks what was asked for, InputError if it cannot be downloaded.
    """
    found = _load(name)
    for part, kind, fix in (
        (texts, "queries", _subsets(name)),
        (texts, "docs", ""),
        (qrels, "qrels", _subsets(name) or "Fix: --qrels FILE"),
        (run, "scoreddocs", "Fix: --run RUN; rerank run has --first-stage bm25 too"),
    ):
        if part and not found.has(kind):
            words = {"docs": "documents", "scoreddocs": "scored documents (first stage)", "qrels": "judgements (qrels)"}
            raise UsageError(f"--dataset {name}: has no {words.get(kind, kind)}. {fix}".rstrip())
    folder = state_folder() / "datasets" / name.replace("/", "+")
    files = DatasetFiles()
    with writing(str(folder)), _reading(name):
        folder.mkdir(parents=True, exist_ok=True)
        keep = _Keeper(folder)
        if texts:
            queries = keep("queries.jsonl", map(_query_line, found.queries_iter()))
            files = DatasetFiles(queries, keep(f"corpus{CORPUS_SUFFIX}", _descriptor(name, found)))
        judgements = keep("qrels.tsv", _qrels(found)) if qrels or (judged and found.has("qrels")) else ""
        scored = keep("scoreddocs.jsonl", _scored(found)) if run else ""
    return DatasetFiles(files.queries, files.corpus, judgements, scored)


class DatasetDocuments:
    """The documents of a set by id, see `documents.Documents`; `path` is a descriptor of `dataset_files`."""

    left_out = ""

    def __init__(self, path: str) -> None:
        try:
            self._set_id = str(orjson.loads(Path(path).read_bytes())["ir_datasets"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{shown(path, 300)}: does not name a set of ir_datasets ({error})") from error
        self._set = _load(self._set_id)
        with _reading(self._set_id):
            self._store: Any = self._set.docs_store()
            self.count: int = self._set.docs_count() or 0

    def find(self, keys: Sequence[str]) -> dict[str, Found]:
        """The document of each id, None if there is none. Raises InputError."""
        found: dict[str, Found] = dict.fromkeys(keys)
        wanted = iter(found.copy())
        with _reading(self._set_id):
            while some := list(islice(wanted, _AT_ONCE)):
                for document in self._store.get_many_iter(some):
                    found[document.doc_id] = _record(document)
        return found

    def sizes(self, keys: Sequence[str]) -> list[int]:
        """About how many bytes each document has, 0 if there is none with this id. Raises InputError."""
        found: dict[str, int] = dict.fromkeys(keys, 0)
        wanted = iter(found.copy())
        while some := list(islice(wanted, _AT_ONCE)):
            for key, record in self.find(some).items():
                found[key] = len(orjson.dumps(record)) if record else 0
        return [found[key] for key in keys]

    def listed(self) -> Iterator[Listed]:
        """All documents in the order of the set. Raises InputError."""
        return (listed for listed, _ in self.each())

    def each(self) -> Iterator[tuple[Listed, dict[str, Json]]]:
        """All documents with their content. Raises InputError."""
        with _reading(self._set_id):
            for line, document in enumerate(self._set.docs_iter(), 1):
                yield Listed(document.doc_id, self._set_id, line), _record(document)

    def close(self) -> None:
        self._store.clear_cache()


def _load(name: str) -> Any:
    try:
        import ir_datasets
    except ImportError as error:
        raise UsageError("--dataset needs ir_datasets. Fix: pip install 'rerank-cli[datasets]'") from error
    try:
        return ir_datasets.load(name)
    except KeyError:
        near = get_close_matches(name, list(ir_datasets.registry), 3)
        fix = f"Fix: {', '.join(near)}" if near else "Fix: a name of https://ir-datasets.com, like beir/scifact/test"
        raise UsageError(f"--dataset {shown(name)}: ir_datasets has no set of this name. {fix}") from None


def _subsets(name: str) -> str:
    import ir_datasets

    inside = sorted(other for other in ir_datasets.registry if other.startswith(f"{name}/"))
    return f"Fix: a part of it: {', '.join(inside[:5])}" if inside else ""


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns errors of ir_datasets, which are of many types, into one line."""
    import requests
    from ir_datasets.util import HashVerificationError

    try:
        yield
    except ImportError as error:
        raise UsageError(f"--dataset {name}: {' '.join(str(error).split())}") from error
    except (requests.RequestException, HashVerificationError, RuntimeError, FileNotFoundError) as error:
        reason = shown(" ".join(str(error).split()), 300) or type(error).__name__
        raise InputError(f"--dataset {name}: cannot be downloaded or read ({reason})") from error


class _Keeper:
    """Writes files of a folder, whose times change only if their content does. Each process uses names of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, lines: Iterable[bytes]) -> str:
        path = self._folder / name
        new = path.with_name(f"{name}.{os.getpid()}.new")
        try:
            with open(new, "wb") as file:
                file.writelines(lines)
            if not (path.exists() and filecmp.cmp(path, new, shallow=False)):
                new.replace(path)
        finally:
            with suppress(FileNotFoundError):
                new.unlink()
        return str(path)


def _descriptor(name: str, found: Any) -> list[bytes]:
    """What identifies the documents: the set, how many there are, and the first of them."""
    first = [_record(document) for document in islice(found.docs_iter(), 10)]
    about = {"ir_datasets": name, "documents": found.docs_count(), "first": first}
    return [orjson.dumps(about, option=orjson.OPT_APPEND_NEWLINE)]


def _query_line(query: Any) -> bytes:
    record = {key: value for key, value in _plain(query).items() if key != "query_id"}
    if type(record.get("text")) is not str:
        record["text"] = query.default_text()
    return orjson.dumps({"_id": query.query_id, **record}, option=orjson.OPT_APPEND_NEWLINE)


def _qrels(found: Any) -> Iterator[bytes]:
    """The judgements in BEIR's form; a document judged several times for a query, as by subtopic, has the highest."""
    grades: dict[tuple[str, str], int] = {}
    for one in found.qrels_iter():
        key = one.query_id, one.doc_id
        grades[key] = max(grades.get(key, one.relevance), one.relevance)
    yield b"query-id\tcorpus-id\tscore\n"
    for (query, document), grade in grades.items():
        yield f"{query}\t{document}\t{grade}\n".encode()


def _scored(found: Any) -> Iterator[bytes]:
    for one in found.scoreddocs_iter():
        yield orjson.dumps(
            {"query_id": one.query_id, "docid": one.doc_id, "score": one.score}, option=orjson.OPT_APPEND_NEWLINE
        )


def _record(document: Any) -> dict[str, Json]:
    """A document as an object. One without a known text has `default_text()` as `text`, less the title before it."""
    record: dict[str, Json] = _plain(document)
    if not any(type(record.get(name)) is str for name in TEXT):
        text, title = document.default_text(), record.get("title")
        is_first = isinstance(title, str) and title and text.startswith(title)
        record["text"] = text[len(title) :].strip() if is_first and isinstance(title, str) else text
    return record


def _plain(value: Any) -> Any:
    """A value as JSON has it; bytes are left out of objects."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items() if not isinstance(part, bytes)}
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items() if not isinstance(part, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def is_dataset(path: str) -> bool:
    """Whether a corpus is a set of ir_datasets."""
    return path.endswith(CORPUS_SUFFIX)
