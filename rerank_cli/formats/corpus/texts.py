"""Texts of queries and documents by id, for callers that have ids only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.building import open_corpus, open_in_memory
from rerank_cli.formats.corpus.documents import Found
from rerank_cli.formats.corpus.files import Corpus
from rerank_cli.formats.shapes.documents import full_text
from rerank_cli.formats.shapes.fields import DOC_ID, QUERY_ID, TEXT, Names
from rerank_cli.formats.shapes.requests import find_query
from rerank_cli.records import Json

QUERY_TEXT = ("text", "query", "query.text", "question", "q")


def query_texts(path: str, ids: Iterable[str]) -> dict[str, str]:
    """The texts of those queries that the file has. Raises InputError."""
    names = Names(QUERY_TEXT, id=QUERY_ID)
    with closing(open_in_memory(Corpus.of(path, names.id, names.query))) as documents:
        found = documents.find(list(ids))
    return _texts(path, "query", found, lambda record: str(find_query(record, names).value))


class DocumentTexts:
    """Texts from corpora, each a file or a folder. A document in several of them is taken from the first.

    The index of a large corpus is kept beside it or in `index_folder`; `notify` gets a line when one is built.
    """

    def __init__(self, paths: Sequence[str], index_folder: str | None, notify: Callable[[str], None]) -> None:
        self._names = Names()
        self._wanted = self._hits = 0
        self._corpora = []
        with ExitStack() as stack:
            for path in paths:
                documents = open_corpus(Corpus.of(path, DOC_ID, TEXT), index_folder, notify)
                stack.callback(documents.close)
                self._corpora.append((path, documents))
            self.close = stack.pop_all().close

    def find(self, ids: Iterable[str]) -> dict[str, str]:
        """The texts of those documents that the corpora have, each after its title if it has one. Raises InputError."""
        missing, found = list(dict.fromkeys(ids)), dict[str, str]()
        self._wanted += len(missing)
        for path, documents in self._corpora:
            found |= _texts(path, "document", documents.find(missing), lambda record: full_text(record, self._names))
            missing = [name for name in missing if name not in found]
        self._hits += len(found)
        return found

    def check_used(self) -> None:
        """Raise InputError if documents were looked up and none was found, as in the wrong files."""
        if self._wanted and not self._hits:
            where = ", ".join(shown(path, 300) for path, _ in self._corpora)
            raise InputError(f"{where}: none of the documents without a text was found (looked up {self._wanted:,})")


def _texts(
    path: str, what: str, found: Mapping[str, Found], text_of: Callable[[dict[str, Json]], str]
) -> dict[str, str]:
    texts = {}
    for name, record in found.items():
        try:
            if isinstance(record, BadRecord):
                raise record
            if record is not None:
                texts[name] = text_of(record)
        except BadRecord as error:
            raise InputError(f"{what} {shown(repr(name))} of {shown(path, 300)}: {error}") from None
    return texts
