"""The documents (or queries) of a file: the id of each, and the byte range of its line.

Plain JSON lines and tab-separated lines are addressed in their file. Documents of compressed and of remote files and of
other formats are copied, as lines, to the file `copy`, and addressed there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import orjson

from rerank_cli.choices import InputFormat
from rerank_cli.display import names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.corpus.files import Corpus
from rerank_cli.formats.reading.inputs import TABLES, TableInput, format_of, json_input, open_table
from rerank_cli.formats.reading.lines import MAX_LINE, decode_line, utf8_text
from rerank_cli.formats.shapes.fields import DOC_ID, QUERY_ID, TEXT, an_id, first, key_of
from rerank_cli.formats.shapes.requests import an_object
from rerank_cli.formats.shapes.rows import Row, unusual
from rerank_cli.records import Json, Place, Rejection
from rerank_cli.storage.opening import BOM, Opened, is_local, open_bytes

JSON, TSV = "JSON lines", "TSV"
# Tab-separated files without a header: MS MARCO's collection and queries, passages with titles, MS MARCO's documents.
_WITHOUT_HEADER = {2: ("id", "text"), 3: ("id", "title", "text"), 4: ("docid", "url", "title", "body")}
_KNOWN = frozenset((*DOC_ID, *QUERY_ID, *TEXT, "title", "query"))


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How the lines of a file are decoded: as JSON, or as cells of `columns`. `copied` lines are in the index file."""

    kind: str
    columns: tuple[str, ...] = ()
    copied: bool = False

    def decode(self, line: bytes) -> dict[str, Json]:
        """The document in a line. Raises BadRecord."""
        if self.kind == JSON:
            return an_object(decode_line(line))
        return dict(zip(self.columns, _cells(line, len(self.columns)), strict=True))


class DocumentLine(NamedTuple):
    """A document: its id as text and the byte range of its line; `problem` says why there is no id."""

    line: int
    key: str
    offset: int
    length: int
    problem: str = ""


def document_lines(path: str, corpus: Corpus, copy: BinaryIO) -> tuple[LineFormat, Iterator[DocumentLine]]:
    """The line format of a file of the corpus, and its documents in order. Raises InputError for an unknown format."""
    opened = open_bytes(path)
    try:
        known = _KNOWN.union(corpus.id_names, corpus.text_names)
        format = format_of(opened, known)
        if format in TABLES:
            table = open_table(opened, format, known=known, texts=corpus.text_names)
            return LineFormat(JSON, copied=True), _copied(
                table.rows(Place()), table.close, corpus, copy, _vectors(table)
            )
        if format is InputFormat.JSON:
            found = json_input(opened, Place())
            return LineFormat(JSON, copied=True), _copied(found.rows, found.close, corpus, copy)
        is_json = format is InputFormat.JSONL or not opened.content.peek(1).removeprefix(BOM).strip()
        columns, header = ((), False) if is_json else _columns(opened, corpus)
        lines = LineFormat(
            JSON if is_json else TSV, columns, copied=opened.compression is not None or not is_local(path)
        )
        return lines, _text(opened, lines, corpus, copy, header)
    except BaseException:
        opened.content.close()
        raise


def _columns(opened: Opened, corpus: Corpus) -> tuple[tuple[str, ...], bool]:
    """The columns of tab-separated lines, and whether the first line is a header: one with two known names is."""
    line = opened.content.peek(1).removeprefix(BOM).partition(b"\n")[0]
    try:
        cells = line.decode("utf-8", "replace" if len(line) > 1 << 16 else "strict").rstrip("\r").split("\t")
    except UnicodeDecodeError as error:
        raise InputError(f"{opened.name}:1: is neither JSON nor text in UTF-8 ({error.reason})") from None
    if len(_KNOWN.union(corpus.id_names, corpus.text_names).intersection(cells)) >= 2:
        return tuple(cells), True
    columns = _WITHOUT_HEADER.get(len(cells))
    if columns is None:
        expected = "expected JSON lines, or 2 (id text), 3 (id title text) or 4 tab-separated columns"
        fix = "Fix: add a header line with the names of the columns"
        raise InputError(f"{opened.name}:1: unknown columns (got {len(cells)}; {expected}). {fix}")
    # Without a header, a mapped field name becomes the name of the id or text column.
    text_names = corpus.text_names if len(corpus.text_names) == 1 else TEXT
    renamed = {columns[0]: corpus.id_names, "body" if "body" in columns else "text": text_names}
    return tuple(name if name in renamed.get(name, (name,)) else renamed[name][0] for name in columns), False


def _cells(line: bytes, count: int) -> list[str]:
    """The `count` cells of a line, of which the last may contain tabs. Raises BadRecord."""
    cells = utf8_text(line).rstrip("\r\n").split("\t", count - 1)
    if len(cells) != count:
        raise BadRecord("bad_columns", f"the line has {len(cells)} columns (expected {count})")
    return cells


def _text(opened: Opened, lines: LineFormat, corpus: Corpus, copy: BinaryIO, header: bool) -> Iterator[DocumentLine]:
    # The id is in the first column with a known name; without such a name, in the first column.
    columns, id_names, is_json = lines.columns, corpus.id_names, lines.kind == JSON
    id_column = next((columns.index(name) for name in id_names if name in columns), 0)
    number = offset = 0
    with opened.content as content:
        while line := content.readline(MAX_LINE + 1):
            number += 1
            begin, length = offset, len(line)
            offset += length
            if number == 1 and line.startswith(BOM):
                line = line[len(BOM) :]
                begin, length = len(BOM), len(line)
            if (number == 1 and header) or line.isspace() or not line:
                continue
            if length > MAX_LINE and not line.endswith(b"\n"):
                raise InputError(f"{opened.name}:{number}: the line is too long (got more than {MAX_LINE >> 20} MiB)")
            try:
                key = _json_key(line, id_names) if is_json else _cells(line, len(columns))[id_column]
            except BadRecord as error:
                yield DocumentLine(number, "", begin, length, str(error))
                continue
            if lines.copied:
                begin = copy.tell()
                copy.write(line if line.endswith(b"\n") else line + b"\n")
            yield DocumentLine(number, key, begin, length)


def _json_key(line: bytes, id_names: Sequence[str]) -> str:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = decode_line(line)  # raises with a better message
    return document_key(an_object(value), id_names)


def document_key(value: dict[str, Json], id_names: Sequence[str]) -> str:
    """A document's id as text. Raises BadRecord if it has none."""
    found = next((value[name] for name in id_names if value.get(name) is not None), None)
    if type(found) is str:
        return found
    found = an_id(first(value, id_names).value if found is None else found, "id")
    if found is None:
        raise BadRecord("missing_id", f"there is no id (got {names(value)})")
    return key_of(found)


def _copied(
    rows: Iterator[Row | Rejection],
    close: Callable[[], None],
    corpus: Corpus,
    copy: BinaryIO,
    left_out: Collection[str] = (),
) -> Iterator[DocumentLine]:
    """Rows as JSON lines, without the columns `left_out`."""
    try:
        for row in rows:
            number = row.position.line
            if isinstance(row, Rejection):
                yield DocumentLine(number, "", 0, 0, row.message)
                continue
            try:
                value = {name: cell for name, cell in an_object(row.value).items() if name not in left_out}
                line = orjson.dumps(value, default=unusual, option=orjson.OPT_APPEND_NEWLINE)
                key = document_key(value, corpus.id_names)
            except (BadRecord, TypeError) as error:
                yield DocumentLine(number, "", 0, 0, shown(str(error), 200))
                continue
            begin = copy.tell()
            copy.write(line)
            yield DocumentLine(number, key, begin, len(line))
    finally:
        close()


def _vectors(table: TableInput) -> frozenset[str]:
    """Columns of lists of numbers, which are mostly embeddings."""
    import pyarrow as pa

    def is_vector(kind: Any) -> bool:
        value = getattr(kind, "value_type", None) if pa.types.is_nested(kind) else None
        return value is not None and (pa.types.is_floating(value) or pa.types.is_integer(value))

    return frozenset(field.name for field in table.schema if is_vector(field.type))
