"""Opens one input file of any kind: JSON lines, one JSON array, tab-separated pairs or Parquet."""

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
    """Raise InputError if only some of the files are Parquet, or if their columns differ."""
    parquet = [path for path in paths if is_file(path) and _is_parquet(path)] if len(paths) > 1 else []
    if not parquet:
        return
    others = [path for path in paths if path not in parquet]
    if others:
        raise InputError(f"{others[0]}: is not Parquet (other inputs are). Fix: one kind of file per run")
    check_same_columns(parquet)


def open_input(path: str, options: InputOptions, fields: Names, start: Place) -> Input:
    """Open a file at `start`. Its first bytes show its kind; TSV is recognised by name or `--shape pairs`."""
    opened, shape = open_bytes(path), options.shape
    try:
        head = opened.content.peek(len(PARQUET_MAGIC)).removeprefix(BOM).lstrip()
        if head.startswith(PARQUET_MAGIC):
            return open_parquet(opened, shape, fields, start)
        stem = path.rpartition(".")[0] if compression_of(path) else path
        tsv = stem.endswith(".tsv") or (shape is Shape.PAIRS and head != b"" and not head.startswith((b"{", b"[")))
        if tsv and shape not in (None, Shape.PAIRS):
            raise UsageError(f"{opened.name}: tab-separated files hold pairs only (got --shape {shape})")
        columns = tsv_columns(path, fields) if tsv and start.rows else None
        opened = opened.at(start.offset)
        content, name = opened.content, opened.name
        if tsv:
            return text_input("TSV", opened, tsv_rows(content, name, fields, start, columns))
        if head.startswith(b"["):
            return text_input("JSON array", opened, array_rows(content, name, start))
        return text_input("JSON lines", opened, json_rows(content, name, start))
    except BaseException:
        opened.content.close()
        raise


def text_input(kind: str, opened: Opened, rows: Iterator[Row | Rejection]) -> Input:
    """An Input of text. It counts the bytes on disk of the rows so far; in a compressed file, those read ahead too."""
    seekable = not opened.compression and is_file(opened.path)

    def taken() -> int:
        return opened.counted.taken - (len(opened.content.peek()) if seekable else 0)

    kind = f"{kind} ({opened.compression})" if opened.compression else kind
    stream = None if is_file(opened.path) else opened.counted
    return Input(kind, rows, taken, opened.content.close, stream=stream)


def _is_parquet(path: str) -> bool:
    with open_bytes(path).content as content:
        return content.peek(len(PARQUET_MAGIC)).startswith(PARQUET_MAGIC)
