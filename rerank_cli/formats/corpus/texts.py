"""Texts of queries and documents by id, for those who know ids only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.addressing import Wanted
from rerank_cli.formats.corpus.building import Corpus, open_corpus, open_in_memory
from rerank_cli.formats.corpus.documents import Found
from rerank_cli.formats.shapes.documents import full_text
from rerank_cli.formats.shapes.fields import DOC_ID, QUERY_ID, TEXT, Names
from rerank_cli.formats.shapes.requests import find_query

QUERY_TEXT = ("text", "query", "query.text", "question", "q")


def query_texts(path: str, ids: Iterable[str]) -> dict[str, str]:
    """The texts of these queries, as far as they are in a file. Raises InputError."""
    names = Names(QUERY_TEXT, id=QUERY_ID)
    documents = open_in_memory(Corpus.of(path, Wanted(names.id, names.query)))
    try:
        found = documents.find(list(ids))
    finally:
        documents.close()
    texts = {
        name: _text(path, "query", name, one, lambda value: find_query(value, names).value)
        for name, one in found.items()
    }
    return {name: text for name, text in texts.items() if text is not None}


class DocumentTexts:
    """Corpora, each a file or a folder; the first that has an id gives its text. A context: files are closed behind it.

    The index of a large one is kept beside it or in `index_folder`; `notify` gets a line when one is built.
    """

    def __init__(self, paths: Sequence[str], index_folder: str | None, notify: Callable[[str], None]) -> None:
        self._names = Names()
        self._wanted = self._hits = 0
        self._open = ExitStack()
        self._corpora = []
        with ExitStack() as stack:
            for path in paths:
                documents = open_corpus(Corpus.of(path, Wanted(DOC_ID, TEXT)), index_folder, notify)
                stack.callback(documents.close)
                self._corpora.append((path, documents))
            self._open = stack.pop_all()

    def find(self, ids: Iterable[str]) -> dict[str, str]:
        """Texts, a title before each that has one, of those documents that are there. Raises InputError."""
        missing, found = list(dict.fromkeys(ids)), {}
        self._wanted += len(missing)
        for path, documents in self._corpora:
            for name, one in documents.find(missing).items():
                text = _text(path, "document", name, one, lambda value: full_text(value, self._names))
                if text is not None:
                    found[name] = text
                    self._hits += 1
            missing = [name for name in missing if name not in found]
        return found

    def check_used(self) -> None:
        """InputError if documents were looked up and none was there: the wrong files were named."""
        if self._wanted and not self._hits:
            where = ", ".join(shown(path, 300) for path, _ in self._corpora)
            raise InputError(f"{where}: none of the documents that lack a text is there (looked up {self._wanted:,})")

    def close(self) -> None:
        self._open.close()


def _text(path: str, what: str, name: str, found: Found, text_of: Callable[[dict[str, object]], str]) -> str | None:
    try:
        if isinstance(found, BadRecord):
            raise found
        return None if found is None else text_of(found)
    except BadRecord as error:
        raise InputError(f"{what} {shown(repr(name))} of {shown(path, 300)}: {error}") from None
