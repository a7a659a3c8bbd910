"""What stands where in the files of a corpus (or of queries): for each document its id, and where its line begins.

Plain JSON lines and tab-separated lines are addressed where they are. Of compressed and Parquet files the documents are
copied, as lines, into the file that `copy` writes to, and addressed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import orjson

from rerank_cli.display import names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.lines import MAX_LINE, decode_line
from rerank_cli.formats.reading.parquet import ParquetInput
from rerank_cli.formats.shapes.fields import DOC_ID, QUERY_ID, TEXT, an_id, first, key_of
from rerank_cli.formats.shapes.requests import an_object
from rerank_cli.formats.shapes.rows import unusual
from rerank_cli.records import Json, Place, Rejection
from rerank_cli.storage.opening import BOM, PARQUET_MAGIC, Opened, open_bytes

JSON, TSV = "JSON lines", "TSV"
# Tab-separated files without a header: MS MARCO's collection and queries, passages with titles, MS MARCO's documents.
_WITHOUT_HEADER = {2: ("id", "text"), 3: ("id", "title", "text"), 4: ("docid", "url", "title", "body")}
_KNOWN = frozenset((*DOC_ID, *QUERY_ID, *TEXT, "title", "query"))


@dataclass(frozen=True, slots=True)
class Lines:
    """How the lines of a file are read: JSON, or cells of `columns`. `copied` ones stand in the index file."""

    kind: str
    columns: tuple[str, ...] = ()
    copied: bool = False

    def decode(self, line: bytes) -> dict[str, Json]:
        """The document in a line. Raises BadRecord."""
        if self.kind == JSON:
            return an_object(decode_line(line))
        return dict(zip(self.columns, cells_of(line, len(self.columns)), strict=True))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Under which names a document's id and its text are looked for."""

    id: tuple[str, ...]
    text: tuple[str, ...]


class Addressed(NamedTuple):
    """A document: its id as text, and where its line stands. `problem` instead of an id if it has none."""

    line: int
    key: str
    offset: int
    length: int
    problem: str = ""


def addressed(path: str, wanted: Wanted, copy: BinaryIO) -> tuple[Lines, Iterator[Addressed]]:
    """How a file's lines are read, and its documents in order. Raises InputError if it is no such file."""
    opened = open_bytes(path)
    try:
        return _addressed(opened, wanted, copy)
    except BaseException:
        opened.content.close()
        raise


def _addressed(opened: Opened, wanted: Wanted, copy: BinaryIO) -> tuple[Lines, Iterator[Addressed]]:
    head = opened.content.peek(len(BOM) + len(PARQUET_MAGIC)).removeprefix(BOM).lstrip()
    if head.startswith(PARQUET_MAGIC):
        return Lines(JSON, copied=True), _parquet(opened, wanted, copy)
    if head.startswith(b"["):
        fix = "Fix: jq -c '.[]' makes JSON lines of it"
        raise InputError(f"{opened.name}: is one JSON array (expected a document a line). {fix}")
    target = copy if opened.compression else None
    if head.startswith(b"{") or not head:
        lines = Lines(JSON, copied=target is not None)
        return lines, _text(opened, lines, wanted.id, target, header=False)
    columns, header = _columns(opened, wanted)
    lines = Lines(TSV, columns, copied=target is not None)
    return lines, _text(opened, lines, wanted.id, target, header)


def _columns(opened: Opened, wanted: Wanted) -> tuple[tuple[str, ...], bool]:
    """The columns of tab-separated lines, and whether the first line names them. Two known names make a header."""
    line = opened.content.peek(1).removeprefix(BOM).partition(b"\n")[0]
    try:
        cells = line.decode("utf-8", "replace" if len(line) > 1 << 16 else "strict").rstrip("\r").split("\t")
    except UnicodeDecodeError as error:
        raise InputError(f"{opened.name}:1: is neither JSON nor text in UTF-8 ({error.reason})") from None
    if len(_KNOWN.union(wanted.id, wanted.text).intersection(cells)) >= 2:
        return tuple(cells), True
    columns = _WITHOUT_HEADER.get(len(cells))
    if columns is None:
        expected = "expected JSON lines, or 2 (id text), 3 (id title text) or 4 tab-separated columns"
        fix = "Fix: a first line with the names of the columns"
        raise InputError(f"{opened.name}:1: the columns cannot be told (got {len(cells)}; {expected}). {fix}")
    # A name that was mapped is the one of the id, or of the text, of a file that names none itself.
    text = "body" if "body" in columns else "text"
    renamed = {columns[0]: wanted.id, text: wanted.text}
    return tuple(
        given[0] if (given := renamed.get(name, (name,))) and name not in given else name for name in columns
    ), False


def cells_of(line: bytes, count: int) -> list[str]:
    """So many cells of a line; the last one may have tabs in it. Raises BadRecord."""
    try:
        cells = line.decode("utf-8").rstrip("\r\n").split("\t", count - 1)
    except UnicodeDecodeError as wrong:
        message = f"the line is not valid UTF-8 (got byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})"
        raise BadRecord("bad_utf8", message) from None
    if len(cells) != count:
        raise BadRecord("bad_columns", f"the line has {len(cells)} columns (expected {count})")
    return cells


def _text(
    opened: Opened, lines: Lines, id_names: Sequence[str], copy: BinaryIO | None, header: bool
) -> Iterator[Addressed]:
    content = opened.content
    find = _json_key if lines.kind == JSON else _tsv_key(lines, id_names)
    number = offset = 0
    with content:
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
                key = find(line, id_names)
            except BadRecord as error:
                yield Addressed(number, "", begin, length, str(error))
                continue
            if copy:
                begin = copy.tell()
                copy.write(line if line.endswith(b"\n") else line + b"\n")
            yield Addressed(number, key, begin, length)


def _json_key(line: bytes, id_names: Sequence[str]) -> str:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = decode_line(line)  # for its better message
    return document_key(an_object(value), id_names)


def _tsv_key(lines: Lines, id_names: Sequence[str]) -> Callable[[bytes, Sequence[str]], str]:
    """The id's column is the first of the known names that is there; of files without a header the first."""
    at = next((lines.columns.index(name) for name in id_names if name in lines.columns), 0)
    count = len(lines.columns)
    return lambda line, _: cells_of(line, count)[at]


def document_key(value: dict[str, Json], id_names: Sequence[str]) -> str:
    """A document's id as text. Raises BadRecord if it has none."""
    found = next((value[name] for name in id_names if value.get(name) is not None), None)
    if type(found) is str:
        return found
    found = an_id(first(value, id_names).value if found is None else found, "id")
    if found is None:
        raise BadRecord("missing_id", f"there is no id (got {names(value)})")
    return key_of(found)


def _parquet(opened: Opened, wanted: Wanted, copy: BinaryIO) -> Iterator[Addressed]:
    """Rows as lines of JSON. Lists of numbers, embeddings mostly, are left out."""
    import pyarrow as pa

    source = ParquetInput(opened)
    try:
        kinds = {field.name: field.type for field in source.schema}
        vectors = [name for name, kind in kinds.items() if pa.types.is_nested(kind) and _numbers(kind)]
        for row in source.rows(Place()):
            number = row.position.line
            if isinstance(row, Rejection):
                yield Addressed(number, "", 0, 0, row.message)
                continue
            value = {key: cell for key, cell in row.value.items() if key not in vectors}
            begin = copy.tell()
            try:
                line = orjson.dumps(value, default=unusual, option=orjson.OPT_APPEND_NEWLINE)
                key = document_key(value, wanted.id)
            except (BadRecord, TypeError) as error:
                yield Addressed(number, "", 0, 0, shown(str(error), 200))
                continue
            copy.write(line)
            yield Addressed(number, key, begin, len(line))
    finally:
        source.close()


def _numbers(kind: object) -> bool:
    import pyarrow as pa

    value = getattr(kind, "value_type", None)
    return value is not None and (pa.types.is_floating(value) or pa.types.is_integer(value))
