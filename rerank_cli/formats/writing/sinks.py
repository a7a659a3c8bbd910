"""Where outcomes go: the output is checked before anything costs time, then opened as lines or as Parquet."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rerank_cli.choices import OutputFormat
from rerank_cli.display import shown
from rerank_cli.errors import OutputError, RefusedError, UsageError
from rerank_cli.formats.contract import ArrowSchema, Sink
from rerank_cli.formats.options import AnswerOptions, OutputOptions
from rerank_cli.formats.writing.answers import Object
from rerank_cli.formats.writing.line_sink import LineSink, json_line, renderer
from rerank_cli.formats.writing.parquet_sink import ParquetSink, remove_parts
from rerank_cli.formats.writing.run_files import frame_of
from rerank_cli.records import Shape
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.files import ByteFile, Committed, PartialFile, Stream, open_special, writing
from rerank_cli.storage.paths import STREAM, final_path, is_special, partial_path, refuse_if_input

_PARQUET = ".parquet"


def check_output(options: OutputOptions, inputs: Sequence[str], stdout: BinaryIO | None = None) -> None:
    """Raise what would keep the output from being written: UsageError, RefusedError or OutputError."""
    _check_format(options)
    path = options.path
    if path == STREAM:
        refuse_if_input(STREAM, inputs, stdout=stdout)
        return
    if is_special(path):
        if path.endswith(_PARQUET) or compression_of(path):
            raise UsageError(f"{shown(path, 300)}: is a device or a pipe (expected a file for this kind of output)")
        return
    with writing(path):
        final, partial = final_path(path), partial_path(path)
        for written in (final, partial):
            refuse_if_input(written, inputs)
        _check_place(options, final)


def refuse_existing(options: OutputOptions) -> None:
    """RefusedError if a file stands where the output shall stand, unless it may be replaced."""
    if options.path == STREAM or options.overwrite or is_special(options.path):
        return
    if final_path(options.path).exists():
        raise RefusedError(f"{shown(options.path, 300)}: exists already. Fix: --overwrite, or another -o")


def discard_partial(path: str) -> None:
    """Remove what is left of an unfinished output."""
    partial = partial_path(path)
    with writing(path):
        if partial.is_dir():
            remove_parts(partial)
        else:
            partial.unlink(missing_ok=True)


def check_side_file(
    path: str, flag: str, options: OutputOptions, inputs: Sequence[str], *, must_write: bool = True
) -> None:
    """Raise what speaks against a file beside the output (`--errors`, say): no place, or one that is taken.

    Unless it `must_write`, a run does without a folder that cannot be written to.
    """
    if path == STREAM:
        raise UsageError(f"{flag} cannot be - (stdout carries the answers). Fix: name a file")
    if is_special(path):
        return
    with writing(path):
        final = final_path(path)
        refuse_if_input(final, inputs, f"another {flag}")
        if options.path != STREAM and final in (final_path(options.path), partial_path(options.path)):
            raise UsageError(f"{flag} and -o name the same file. Fix: another {flag}")
        if must_write or not final.parent.is_dir():
            _check_folder(path, final)


def open_sink(
    options: OutputOptions,
    *,
    columns: ArrowSchema | None,
    stdout: BinaryIO | None = None,
    shape: Shape | None = None,
    committed: Committed | None = None,
) -> Sink:
    """Open the output, or an earlier run's behind the point it had `committed`.

    `columns` are a Parquet input's, `shape` is the input's: Parquet output is laid out by them.
    """
    if options.path.endswith(_PARQUET):
        return ParquetSink(options, columns, shape or Shape.RERANK, committed)
    render = renderer(options.format, options.answers, options.keep_errors)
    compression = None if options.path == STREAM else compression_of(options.path)
    file = _open_file(options.path, stdout, committed)
    begun = bool(committed and committed.length)
    return LineSink(file, render, compression, frame_of(options.format, options.answers), begun)


def open_lines(path: str, inputs: Sequence[str], overwrite: bool, stdout: BinaryIO | None) -> LineSink[Object]:
    """An output of JSON lines that is no run's: checked against what stands there and what is read, then opened."""
    if path.endswith(_PARQUET):
        raise UsageError(
            f"{shown(path, 300)}: is written as JSON lines (got the suffix {_PARQUET}). Fix: another suffix"
        )
    options = OutputOptions(path, OutputFormat.API, AnswerOptions(""), overwrite=overwrite)
    check_output(options, inputs, stdout)
    refuse_existing(options)
    return LineSink(_open_file(path, stdout, None), json_line, None if path == STREAM else compression_of(path))


def _open_file(path: str, stdout: BinaryIO | None, committed: Committed | None) -> ByteFile:
    if path == STREAM:
        return Stream(stdout or sys.stdout.buffer, "<stdout>", owned=False)
    return open_special(path) if is_special(path) else PartialFile(path, committed)


def _check_format(options: OutputOptions) -> None:
    path, wanted = options.path, options.format
    if not path:
        raise UsageError("the output path is empty. Fix: -o FILE")
    if path.endswith(_PARQUET) and wanted not in (OutputFormat.API, OutputFormat.PAIRS):
        fix = "Fix: --format api or pairs, or another suffix"
        raise UsageError(f"{shown(path, 300)}: Parquet does not carry --format {wanted}. {fix}")
    if wanted.is_run and options.keep_errors:
        raise UsageError(f"--format {wanted} has no place for errors. Fix: --on-error skip with --errors FILE")


def _check_place(options: OutputOptions, final: Path) -> None:
    shown_path = shown(options.path, 300)
    if final.is_dir():
        raise OutputError(f"{shown_path}: is a folder (expected a file)")
    _check_folder(options.path, final)


def _check_folder(path: str, final: Path) -> None:
    folder = final.parent
    if not folder.is_dir():
        raise OutputError(f"{shown(path, 300)}: its folder does not exist. Fix: mkdir -p {shown(str(folder), 300)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{shown(path, 300)}: its folder cannot be written to")
