"""Documents by their ids, from files of any size: an index says where their lines stand, which are read when asked for.

Reads are announced to the system all at a time and done in the order of the files. What is read is a whole line; a
document is given back only if it has the id that was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.addressing import Lines, document_key
from rerank_cli.formats.corpus.index import Address, open_index
from rerank_cli.records import Json
from rerank_cli.storage.opening import Stamp, stamp_of

_MOST_OPEN = 256

Found = dict[str, Json] | BadRecord | None


class Documents:
    """The documents of files that have these stamps, by an index of them. Raises Damaged if that is none."""

    def __init__(
        self, paths: Sequence[str], stamps: Sequence[Stamp], id_names: tuple[str, ...], index: BinaryIO
    ) -> None:
        self._paths = paths
        self._stamps = stamps
        self._id_names = id_names
        self._index_file = index
        self.index = open_index(index)
        self._lines = [Lines(**{**lines, "columns": tuple(lines["columns"])}) for lines in self.index.about["lines"]]
        self._open: dict[int, int] = {}

    @property
    def left_out(self) -> str:
        """Which lines could not be used, for a person; empty if all could."""
        about = self.index.about
        return (
            f"{about['left_out']:,} bad lines are left out, the first: {about['reason']}" if about["left_out"] else ""
        )

    def find(self, keys: Sequence[str]) -> dict[str, Found]:
        """The document of each id: None where there is none, BadRecord where it cannot be used."""
        distinct = list(dict.fromkeys(keys))
        found: dict[str, Found] = dict.fromkeys(distinct)
        wanted = self.index.find(distinct)
        self._announce([address for _, address in wanted])
        seen: dict[str, tuple[Address, bytes]] = {}
        for number, address in wanted:
            line, key = self._read(address), distinct[number]
            document = self._decoded(line, address, key)
            if document is None:
                continue
            if key not in seen:
                seen[key], found[key] = (address, line), document
            elif line != seen[key][1]:
                found[key] = self._twice(key, seen[key][0], address)
        return found

    def sizes(self, keys: Sequence[str]) -> list[int]:
        """Bytes that the document of each id takes, about; 0 where there is none."""
        return self.index.sizes(list(keys))

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {}
        self._index_file.close()

    def _decoded(self, line: bytes, address: Address, key: str) -> Found:
        """None for a document of another id that has the same hash."""
        try:
            document = self._lines[address.file].decode(line)
            if document_key(document, self._id_names) == key:
                return document
        except BadRecord as error:
            self._check_unchanged(address.file)
            return BadRecord(error.code, f"{self._where(address)}: {error}")
        self._check_unchanged(address.file)
        return None

    def _twice(self, key: str, first: Address, second: Address) -> BadRecord:
        places = f"{self._where(first)} and {self._where(second)}"
        return BadRecord(
            "ambiguous_document", f"document {shown(repr(key))} stands twice, with different content: {places}"
        )

    def _read(self, address: Address) -> bytes:
        try:
            line = os.pread(self._descriptor(address.file), address.length, address.offset)
        except OSError as error:
            raise InputError(f"{self._name(address)}: cannot be read: {error.strerror}") from error
        if len(line) < address.length:
            raise self._changed(address.file)
        return line

    def _announce(self, addresses: Sequence[Address]) -> None:
        """Let the system fetch from the disk what will be read next, all at a time."""
        if hasattr(os, "posix_fadvise"):
            for address in addresses:
                descriptor = self._descriptor(address.file)
                os.posix_fadvise(descriptor, address.offset, address.length, os.POSIX_FADV_WILLNEED)

    def _descriptor(self, file: int) -> int:
        if self._lines[file].copied:
            return self._index_file.fileno()
        if file not in self._open:
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            try:
                descriptor = self._open[file] = os.open(self._paths[file], os.O_RDONLY)
            except OSError as error:
                raise InputError(f"{shown(self._paths[file], 300)}: {os.strerror(error.errno or 0)}") from error
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return self._open[file]

    def _check_unchanged(self, file: int) -> None:
        """InputError if the file is not the one that the index was made of."""
        with suppress(InputError):
            if stamp_of(self._paths[file]) == self._stamps[file]:
                return
        raise self._changed(file)

    def _changed(self, file: int) -> InputError:
        return InputError(
            f"{shown(self._paths[file], 300)}: was changed while it was read. Fix: the same command again"
        )

    def _name(self, address: Address) -> str:
        return shown(self._paths[address.file], 300)

    def _where(self, address: Address) -> str:
        copied = " of its copy in the index" if self._lines[address.file].copied else ""
        return f"{self._name(address)} at byte {address.offset:,}{copied}"
