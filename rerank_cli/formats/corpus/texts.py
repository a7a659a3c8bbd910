"""Texts by id, for those who know ids alone: corpora and queries as JSON lines, Parquet, or `id<tab>text`.

A corpus is read once from front to back; what is kept of it lies in a temporary file, not in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from rerank_cli.display import names
from rerank_cli.errors import InputError
from rerank_cli.formats.reading.lines import json_rows, numbered_lines
from rerank_cli.formats.shapes.fields import DOC_ID, PAIR_QUERY_ID, QUERY, TEXT, first, key_of
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BOM, PARQUET_MAGIC, Opened, open_bytes, stamp_of

DOCUMENTS = (DOC_ID, TEXT)
QUERIES = (("_id", "id", *PAIR_QUERY_ID), ("text", *QUERY))
_BATCH = 1000

Where = tuple[Sequence[str], Sequence[str]]


def texts_in(path: str, where: Where) -> Iterator[tuple[str, str]]:
    """Id and text of each row, a title put before the text. Raises InputError."""
    stamp_of(path)
    opened = open_bytes(path)
    try:
        for row in _rows(opened):
            if isinstance(row, Rejection):
                raise InputError(str(row))
            yield _entry(row.value, row.position, where)
    finally:
        opened.content.close()


def _rows(opened: Opened) -> Iterator[Row | Rejection]:
    head = opened.content.peek(len(PARQUET_MAGIC)).removeprefix(BOM).lstrip()
    if head.startswith(PARQUET_MAGIC):
        from rerank_cli.formats.reading.parquet import ParquetInput

        return ParquetInput(opened).rows(Place())
    if head.startswith(b"{"):
        return json_rows(opened.content, opened.name)
    return _table(opened)


def _table(opened: Opened) -> Iterator[Row | Rejection]:
    for item in numbered_lines(opened.content, opened.name):
        if isinstance(item, Rejection):
            yield item
            continue
        position, line = item
        name, tab, text = line.decode("utf-8", "replace").rstrip("\r\n").partition("\t")
        if not tab:
            raise InputError(f"{position}: is no text with an id (expected JSON, or an id, a tab and a text)")
        yield Row(position, {"id": name, "text": text})


def _entry(value: Json, position: Position, where: Where) -> tuple[str, str]:
    ids, texts = where
    name, text = (first(value, ids).value, first(value, texts).value) if isinstance(value, dict) else (None, None)
    if name is None or not isinstance(text, str):
        got = f"got {names(value)}" if isinstance(value, dict) else "got no object"
        raise InputError(f"{position}: is no text with an id ({got}; expected an id and `{texts[0]}`)")
    title = value.get("title")
    return key_of(name), f"{title} {text}".strip() if isinstance(title, str) and title else text


class TextStore:
    """Texts that are wanted, on disk until it is closed."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE texts (id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")

    def keep(self, texts: Iterable[tuple[str, str]], wanted: Collection[str]) -> None:
        """Keep those with a wanted id; the first one of an id counts."""
        chosen = (entry for entry in texts if entry[0] in wanted)
        while batch := list(islice(chosen, _BATCH)):
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?)", batch)
            self._database.execute("COMMIT")

    def get(self, name: str) -> str | None:
        found = self._database.execute("SELECT text FROM texts WHERE id = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def close(self) -> None:
        self._database.close()
