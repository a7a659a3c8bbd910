"""The input files of a job with an output folder, and the names of their outputs.

INPUT may be a file, a folder (all files in it, at any depth) or a glob pattern. The name of an output is that of its
input relative to the folder, or to the part of the pattern before its first wildcard.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rerank_cli.choices import OutputFormat
from rerank_cli.display import shown
from rerank_cli.errors import InputError, RefusedError, UsageError
from rerank_cli.formats.writing.containers import FITTING, check_suffix
from rerank_cli.run.folders.state import BESIDE
from rerank_cli.run.options import RunConfig
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.opening import not_readable, stamp_of
from rerank_cli.storage.paths import STREAM
from rerank_cli.storage.remote import is_remote

_TABLES = (".arrow", ".arrows", ".feather", ".ipc")
_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".trec", ".run", ".txt", *_TABLES)


@dataclass(frozen=True, slots=True)
class Item:
    """An input file, the path of its output in the output folder, and the input's size in bytes."""

    input: str
    output: str
    size: int


def is_folder(output: str) -> bool:
    """Whether an output path means a folder: it ends with a slash, or is an existing folder."""
    return output != STREAM and not is_remote(output) and (output.endswith("/") or Path(output).is_dir())


def expanded(config: RunConfig) -> RunConfig:
    """The configuration of a run with one output, with patterns among its inputs replaced by the files that match."""
    paths = tuple(path for given in config.input.paths for path in (_matches(given) if is_pattern(given) else [given]))
    return replace(config, input=replace(config.input, paths=paths))


def is_pattern(path: str) -> bool:
    """Whether a path has wildcards, and there is no file of that very name."""
    return path != STREAM and not is_remote(path) and glob.has_magic(path) and not os.path.lexists(path)


def find_items(config: RunConfig) -> list[Item]:
    """The items of all inputs of a run; see `find_items_of`."""
    return find_items_of(config.input.paths, config.output.path, config.output.format)


def find_items_of(inputs: Sequence[str], output: str, format: OutputFormat) -> list[Item]:
    """The items of all inputs, by name of the output.

    Raises InputError for an input that does not exist or has no files, UsageError for two inputs with one output,
    RefusedError for an output folder that is also an input.
    """
    out = os.path.realpath(output)
    found: dict[str, Item] = {}
    for given in inputs:
        for path, name in _files(given, out):
            item = Item(path, output_name(name, format), _size(path))
            other = found.setdefault(item.output, item)
            if _identity(other.input) != _identity(item.input):
                both = f"{shown(other.input, 300)} and {shown(item.input, 300)}"
                where = shown(str(Path(output) / item.output), 300)
                raise UsageError(f"{both} would both be written to {where}. Fix: another -o for one of them")
    return [found[name] for name in sorted(found)]


def output_name(name: str, format: OutputFormat) -> str:
    """The name of an input with the suffix of its output: the same one, if that can be written in this format."""
    stem, packed = (name.rpartition(".")[0], f".{name.rpartition('.')[2]}") if compression_of(name) else (name, "")
    suffix = PurePosixPath(stem).suffix.lower()
    bare = stem[: len(stem) - len(suffix)] if suffix in _KINDS else stem
    table, lines = (".parquet", ".csv") if format is OutputFormat.PAIRS else (".parquet", ".jsonl")
    if format.is_run:
        return f"{bare}{FITTING[format]}{packed}"
    if suffix in _TABLES:
        return f"{bare}{table}"
    for wanted in (name, f"{bare}{suffix}", f"{bare}{lines}{packed}"):
        try:
            check_suffix(wanted, format)
        except UsageError:
            continue
        return wanted
    return f"{bare}.jsonl"


def _files(given: str, out: str) -> Iterator[tuple[str, str]]:
    """Path and relative name of every input file of an argument."""
    if given == STREAM:
        raise UsageError("an output folder needs input files (got stdin). Fix: name files, a folder or a pattern")
    if is_remote(given):
        yield given, given.rpartition("/")[2]
    elif is_pattern(given):
        root = _root(given)
        _refuse_output(root, out)
        for path in _matches(given):
            if f"{os.path.realpath(path)}/".startswith(f"{out}/"):
                continue
            yield from _in_folder(path, root, out) if Path(path).is_dir() else [(path, os.path.relpath(path, root))]
    elif Path(given).is_dir():
        _refuse_output(given, out)
        files = list(_in_folder(given, given, out))
        if not files:
            raise InputError(f"{shown(given, 300)}: has no input files")
        yield from files
    else:
        if not os.path.lexists(given):
            raise not_readable(given, FileNotFoundError())
        _refuse_output(str(Path(given).parent), out)
        yield given, Path(given).name


def _size(path: str) -> int:
    """In bytes; 0 for what cannot be read, which is found when its turn comes."""
    if is_remote(path):
        found = stamp_of(path)
        return found.size if found else 0
    return Path(path).stat().st_size if Path(path).is_file() else 0


def _identity(path: str) -> str:
    return path if is_remote(path) else os.path.realpath(path)


def _matches(pattern: str) -> list[str]:
    """The files and folders that match, in order, without hidden ones, without our own, and without those of a folder
    that matches too.
    """
    root = _root(pattern)
    every = glob.iglob(pattern, recursive=True)  # noqa: PTH207
    found = (path for path in every if _counts(os.path.relpath(path, root)))
    kept = sorted({path.rstrip("/") for path in found if not ("**" in pattern and Path(path).is_dir())})
    if not kept:
        raise InputError(f"{shown(pattern, 300)}: no file matches")
    return kept


def _root(pattern: str) -> str:
    """The folder before the first wildcard."""
    parts = pattern.split("/")
    fixed = parts[: next(number for number, part in enumerate(parts) if glob.has_magic(part))]
    return "/".join(fixed) or ("/" if fixed else ".")


def _in_folder(folder: str, root: str, out: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or real == out:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _counts(name))
        for name in sorted(names):
            path = Path(place, name)
            # A broken link is an input that cannot be read, not one that is not there.
            if _counts(name) and (path.is_file() or path.is_symlink()):
                yield str(path), os.path.relpath(path, root)


def _raise(error: OSError) -> None:
    raise not_readable(str(error.filename), error) from error


def _counts(name: str) -> bool:
    """Whether no part of a relative path is hidden, and it is not a file beside an unfinished output."""
    return not any(_hidden(part) for part in name.split("/")) and not BESIDE.search(name)


def _hidden(part: str) -> bool:
    """As Spark, Hive and Arrow see it: `_SUCCESS` and `.part.crc` are no data, `_day=1` is a partition."""
    return (part.startswith(".") and part not in (".", "..")) or (part.startswith("_") and "=" not in part)


def _refuse_output(folder: str, out: str) -> None:
    if os.path.realpath(folder) == out:
        what = "would be written while it is read as an input"
        raise RefusedError(f"{shown(out, 300)}: {what}. Fix: another folder as -o")


def absolute(paths: Sequence[str]) -> list[str]:
    """Paths for another working folder."""
    return [path if is_remote(path) else str(Path(path).absolute()) for path in paths]
