"""Documents by id from files of any size: an index has the byte ranges of their lines, which are read on request.

All reads of a request are announced to the operating system at once and done in file order. A document is returned only
if the line read has the requested id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO, NamedTuple, Protocol

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.addressing import LineFormat, document_key
from rerank_cli.formats.corpus.files import Corpus
from rerank_cli.formats.corpus.index import Address, CorpusIndex, InvalidIndex
from rerank_cli.records import Json
from rerank_cli.storage.opening import not_readable, stamp_of

_MOST_OPEN = 256

Found = dict[str, Json] | BadRecord | None


class Listed(NamedTuple):
    """The id of a document, and where it is; `line` is its number among the documents in a copied file."""

    key: str
    path: str
    line: int


class DocumentSource(Protocol):
    """Documents by id. `left_out` describes what could not be read, "" if there is nothing."""

    left_out: str

    @property
    def count(self) -> int: ...
    def find(self, keys: Sequence[str]) -> dict[str, Found]: ...
    def sizes(self, keys: Sequence[str]) -> list[int]: ...
    def listed(self) -> Iterator[Listed]: ...
    def each(self) -> Iterator[tuple[Listed, dict[str, Json]]]: ...
    def close(self) -> None: ...


class Documents:
    """The documents of a corpus, by its index in a file. Raises InvalidIndex.

    `left_out` describes the lines that could not be indexed, "" if there are none.
    """

    def __init__(self, corpus: Corpus, index: BinaryIO) -> None:
        self._corpus = corpus
        self._index_file = index
        self.index = CorpusIndex(index)
        about = self.index.about
        if about["identity"] != corpus.identity:
            raise InvalidIndex("was built for other files or fields")
        self._formats = [LineFormat(**{**lines, "columns": tuple(lines["columns"])}) for lines in about["lines"]]
        count, reason = about["left_out"], about["reason"]
        self.left_out = f"{count:,} bad lines are left out, the first: {reason}" if count else ""
        self._open: dict[int, int] = {}

    def find(self, keys: Sequence[str]) -> dict[str, Found]:
        """The document of each id: None if there is none, BadRecord if it cannot be used. Raises InputError."""
        distinct = list(dict.fromkeys(keys))
        found: dict[str, Found] = dict.fromkeys(distinct)
        addresses = self.index.find(distinct)
        if hasattr(os, "posix_fadvise"):
            for _, (file, offset, length) in addresses:
                os.posix_fadvise(self._descriptor(file), offset, length, os.POSIX_FADV_WILLNEED)
        seen: dict[str, tuple[Address, bytes]] = {}
        for number, address in addresses:
            line, key = self._read(address), distinct[number]
            document = self._decoded(line, address, key)
            if document is None:
                continue
            if key not in seen:
                seen[key], found[key] = (address, line), document
            elif line != seen[key][1]:
                places = f"{self._where(seen[key][0])} and {self._where(address)}"
                message = f"document {shown(repr(key))} occurs twice with different content: {places}"
                found[key] = BadRecord("ambiguous_document", message)
        return found

    @property
    def count(self) -> int:
        """How many documents there are."""
        return self.index.count

    def sizes(self, keys: Sequence[str]) -> list[int]:
        """About how many bytes each document has, 0 if there is none with this id."""
        return self.index.sizes(keys)

    def listed(self) -> Iterator[Listed]:
        """All documents in corpus order, of those with one id the first. Raises InputError."""
        return (listed for listed, _ in self.each())

    def each(self) -> Iterator[tuple[Listed, dict[str, Json]]]:
        """All documents in corpus order with their content, of those with one id the first. Raises InputError."""
        known: set[str] = set()
        file, line, end = -1, 0, 0
        for address in self.index.addresses():
            if address.file != file:
                file, line, end = address.file, 0, 0
            # Lines between two documents are blank, bad or a header.
            if not self._formats[file].copied and address.offset > end:
                line += os.pread(self._descriptor(file), address.offset - end, end).count(b"\n")
            line, end = line + 1, address.offset + address.length
            try:
                document = self._formats[file].decode(self._read(address))
                key = document_key(document, self._corpus.id_names)
            except BadRecord:
                raise self._changed(file) from None
            if self.index.repeated:
                if key in known:
                    continue
                known.add(key)
            yield Listed(key, self._name(file), line), document

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {}
        self._index_file.close()

    def _decoded(self, line: bytes, address: Address, key: str) -> Found:
        """None for a document of another id that has the same hash."""
        problem = None
        try:
            document = self._formats[address.file].decode(line)
            if document_key(document, self._corpus.id_names) == key:
                return document
        except BadRecord as error:
            problem = BadRecord(error.code, f"{self._where(address)}: {error}")
        with suppress(InputError):
            if stamp_of(self._corpus.files[address.file]) == self._corpus.stamps[address.file]:
                return problem
        raise self._changed(address.file)

    def _read(self, address: Address) -> bytes:
        try:
            line = os.pread(self._descriptor(address.file), address.length, address.offset)
        except OSError as error:
            raise InputError(f"{self._name(address.file)}: cannot be read: {error.strerror}") from error
        if len(line) < address.length:
            raise self._changed(address.file)
        return line

    def _descriptor(self, file: int) -> int:
        if self._formats[file].copied:
            return self._index_file.fileno()
        if file not in self._open:
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            path = self._corpus.files[file]
            try:
                descriptor = self._open[file] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise not_readable(path, error) from error
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return self._open[file]

    def _changed(self, file: int) -> InputError:
        return InputError(f"{self._name(file)}: was changed while it was read. Fix: run the same command again")

    def _name(self, file: int) -> str:
        return shown(self._corpus.files[file], 300)

    def _where(self, address: Address) -> str:
        copied = " of its copy in the index" if self._formats[address.file].copied else ""
        return f"{self._name(address.file)} at byte {address.offset:,}{copied}"
