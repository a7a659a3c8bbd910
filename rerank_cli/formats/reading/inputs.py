"""One input file: which kind it is, and its rows: JSON lines, one JSON array, tab-separated pairs or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.arrays import array_rows
from rerank_cli.formats.reading.file_rows import Input
from rerank_cli.formats.reading.lines import json_rows
from rerank_cli.formats.reading.parquet import check_same_columns, open_parquet
from rerank_cli.formats.reading.tsv import tsv_columns, tsv_rows
from rerank_cli.formats.shapes.fields import Names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Rejection, Shape
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.opening import BOM, PARQUET_MAGIC, Opened, is_file, open_bytes


def check_kinds(paths: Sequence[str]) -> None:
    """Raise InputError if some of the files are Parquet and others are not, or if their columns differ."""
    parquet = [path for path in paths if is_file(path) and _is_parquet(path)] if len(paths) > 1 else []
    if not parquet:
        return
    others = [path for path in paths if path not in parquet]
    if others:
        raise InputError(f"{others[0]}: is not Parquet (got other inputs that are). Fix: one kind of file a run")
    check_same_columns(parquet)


def open_input(path: str, options: InputOptions, fields: Names, start: Place) -> Input:
    """Open a file, to be read from `start` on.

    Its kind is recognised by its first bytes, that of tab-separated files by name or by `--shape pairs`.
    """
    opened = open_bytes(path)
    try:
        return _input(opened, options, fields, start)
    except BaseException:
        opened.content.close()
        raise


def _input(opened: Opened, options: InputOptions, fields: Names, start: Place) -> Input:
    head = opened.content.peek(len(PARQUET_MAGIC)).removeprefix(BOM).lstrip()
    if head.startswith(PARQUET_MAGIC):
        return open_parquet(opened, options.shape, fields, start)
    if _is_tsv(opened.path, head, options.shape):
        if options.shape not in (None, Shape.PAIRS):
            raise UsageError(f"{opened.name}: tab-separated files carry pairs only (got --shape {options.shape})")
        columns = _tsv_columns(opened.path, fields) if start.rows else None
        opened = opened.at(start.offset)
        return text_input("TSV", opened, tsv_rows(opened.content, opened.name, fields, start, columns))
    if head.startswith(b"["):
        opened = opened.at(start.offset)
        return text_input("JSON array", opened, array_rows(opened.content, opened.name, start))
    opened = opened.at(start.offset)
    return text_input("JSON lines", opened, json_rows(opened.content, opened.name, start))


def text_input(kind: str, opened: Opened, rows: Iterator[Row | Rejection]) -> Input:
    """Rows of text with a count of what was taken of its file."""
    kind = f"{kind} ({opened.compression})" if opened.compression else kind
    return Input(kind, rows, lambda: _worked_off(opened), opened.content.close)


def _worked_off(opened: Opened) -> int:
    """Bytes on disk behind the rows so far; of a compressed file those that were taken, a buffer ahead of the rows."""
    waiting = 0 if opened.compression or not is_file(opened.path) else len(opened.content.peek())
    return opened.counted.taken - waiting


def _is_tsv(path: str, head: bytes, shape: Shape | None) -> bool:
    stem = path.rpartition(".")[0] if compression_of(path) else path
    return stem.endswith(".tsv") or (shape is Shape.PAIRS and bool(head) and not head.startswith((b"{", b"[")))


def _is_parquet(path: str) -> bool:
    with open_bytes(path).content as content:
        return content.peek(len(PARQUET_MAGIC)).startswith(PARQUET_MAGIC)


def _tsv_columns(path: str, fields: Names) -> tuple[str, ...]:
    opened = open_bytes(path)
    with opened.content as content:
        return tsv_columns(content, opened.name, fields)
