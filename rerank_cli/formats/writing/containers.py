"""What the suffix of an output selects: lines, one JSON array, CSV, TSV or Parquet, and a compression.

A suffix that names something else is refused, and so is one that does not fit the format of the rows. A suffix that
names no kind of file (`.out`, `.txt`, none) selects lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import PurePath

from rerank_cli.choices import OutputFormat
from rerank_cli.display import shown
from rerank_cli.errors import OutputError, UsageError
from rerank_cli.storage.compression import compression_of, new_compressor, suffix_of


class Container(StrEnum):
    LINES = "lines"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


_SUFFIXES = {
    ".json": Container.JSON,
    ".csv": Container.CSV,
    ".tsv": Container.TSV,
    ".parquet": Container.PARQUET,
    ".pq": Container.PARQUET,
}
_JSON_LINES = (".jsonl", ".ndjson")
_RUNS = {".trec": (OutputFormat.TREC,), ".run": tuple(found for found in OutputFormat if found.is_run)}
FITTING = {
    OutputFormat.TREC: ".trec",
    OutputFormat.MSMARCO: ".tsv",
    OutputFormat.BEIR: ".json",
    OutputFormat.FLAGEMBEDDING: ".json",
}
_OTHER = frozenset((
    ".arrow", ".arrows", ".feather", ".ipc", ".orc", ".avro", ".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".npy",
    ".npz", ".db", ".sqlite", ".sqlite3", ".duckdb", ".h5", ".hdf5", ".zip", ".tar", ".tgz", ".txz", ".tbz2", ".7z",
    ".rar", ".z", ".br", ".lz", ".lzma", ".lzo", ".sz", ".snappy", ".html", ".htm", ".xml", ".yaml", ".yml", ".md",
    ".pdf", ".pt", ".safetensors",
))  # fmt: skip


def container_of(path: str, format: OutputFormat) -> Container:
    """The container of an output. Formats that are one object or lines of text are written as lines."""
    found = _SUFFIXES.get(suffix_of(path), Container.LINES)
    if found is Container.TSV and format is OutputFormat.MSMARCO:
        return Container.LINES
    return Container.LINES if found is Container.JSON and format.is_one_object else found


def is_continuous(path: str, format: OutputFormat) -> bool:
    """Whether the beginning of an output cannot be continued in another stream: it has an opening of its own."""
    return format.is_one_object or container_of(path, format) in (Container.JSON, Container.CSV, Container.TSV)


def check_suffix(path: str, format: OutputFormat) -> None:
    """Raise UsageError if an output of this format is not what its suffix names, OutputError for a folder's name."""
    name, suffix, compression = shown(path, 300), suffix_of(path), compression_of(path)
    refuse_folder(path)
    if compression:
        new_compressor(compression)
    container = container_of(path, format)
    fitting = f"the suffix {FITTING.get(format, '.jsonl')}"
    if suffix in _OTHER:
        fix = fitting if format.is_run else ".jsonl, .json or .parquet; .csv or .tsv with --format pairs"
        raise UsageError(f"{name}: {suffix} is not written. Fix: {fix}")
    problem = fix = ""
    if container is Container.PARQUET:
        if compression:
            problem, fix = "Parquet is compressed inside", f"-o {shown(path.rpartition('.')[0], 300)}"
        elif format not in (OutputFormat.API, OutputFormat.PAIRS):
            problem, fix = f"Parquet does not support --format {format}", "--format api or pairs, or another suffix"
    elif container in (Container.CSV, Container.TSV) and format is not OutputFormat.PAIRS:
        problem = f"{suffix} holds rows of pairs (got --format {format})"
        fix = fitting if format.is_run else "--format pairs, or another suffix"
    elif format in (OutputFormat.TREC, OutputFormat.MSMARCO) and (container is Container.JSON or suffix in _JSON_LINES):
        problem, fix = f"--format {format} is not JSON", fitting
    elif format.is_one_object and suffix in _JSON_LINES:
        problem, fix = f"--format {format} is one JSON object, not JSON lines", fitting
    elif format not in _RUNS.get(suffix, (format,)):
        problem, fix = f"{suffix} holds a run (got --format {format})", f"--format trec, or {fitting}"
    if problem:
        raise UsageError(f"{name}: {problem}. Fix: {fix}")


def check_kind(path: str, what: str, suffixes: Sequence[str], compressed: bool = False) -> None:
    """Raise UsageError if the suffix of a file that holds `what` is a known one, but none of `suffixes`."""
    refuse_folder(path)
    suffix, compression = suffix_of(path), compression_of(path)
    known = suffix in _OTHER or suffix in (*_SUFFIXES, *_JSON_LINES, *_RUNS)
    if (compression and not compressed) or (known and suffix not in suffixes):
        got = PurePath(path).suffix if compression else suffix
        raise UsageError(f"{shown(path, 300)}: is written as {what} (got the suffix {got}). Fix: use {suffixes[0]}")


def refuse_folder(path: str) -> None:
    """Raise OutputError for a path that ends with a slash: without it, it would become the name of a file."""
    if path.endswith("/"):
        fix = f"a file in it, such as {shown(path, 300)}out.jsonl"
        raise OutputError(f"{shown(path, 300)}: is the name of a folder (expected a file). Fix: {fix}")


def container_setting(path: str, format: OutputFormat) -> str | None:
    """The container as a setting of a run; None for what suffixes selected before the others were honoured."""
    container = container_of(path, format)
    if container is Container.LINES:
        return "xz" if compression_of(path) == "xz" else None
    return None if path.endswith(".parquet") else container.value
