"""Checks an output path before any work is done, and opens the output as lines or as Parquet."""

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
from rerank_cli.formats.writing.run_files import Frame, frame_of
from rerank_cli.records import Shape
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.files import ByteFile, Committed, PartialFile, Stream, open_special, writing
from rerank_cli.storage.paths import STREAM, final_path, is_special, partial_path, refuse_if_input

_PARQUET = ".parquet"


def check_output(options: OutputOptions, inputs: Sequence[str], stdout: BinaryIO | None = None) -> None:
    """Raise UsageError, RefusedError or OutputError if the output cannot be written."""
    path, wanted = options.path, options.format
    if not path:
        raise UsageError("the output path is empty. Fix: -o FILE")
    if path.endswith(_PARQUET) and wanted not in (OutputFormat.API, OutputFormat.PAIRS):
        fix = "Fix: --format api or pairs, or another suffix"
        raise UsageError(f"{shown(path, 300)}: Parquet does not support --format {wanted}. {fix}")
    if wanted.is_run and options.keep_errors:
        raise UsageError(f"--format {wanted} cannot contain errors. Fix: --on-error skip with --errors FILE")
    if path == STREAM:
        refuse_if_input(STREAM, inputs, stdout=stdout)
    elif is_special(path):
        if path.endswith(_PARQUET) or compression_of(path):
            raise UsageError(f"{shown(path, 300)}: is a device or a pipe (expected a file for this kind of output)")
    else:
        with writing(path):
            final = final_path(path)
            for written in (final, partial_path(path)):
                refuse_if_input(written, inputs)
            if final.is_dir():
                raise OutputError(f"{shown(path, 300)}: is a folder (expected a file)")
            _check_folder(path, final)


def refuse_existing(options: OutputOptions) -> None:
    """Raise RefusedError if the output file exists and must not be overwritten."""
    may_exist = options.overwrite or options.path == STREAM or is_special(options.path)
    if not may_exist and final_path(options.path).exists():
        raise RefusedError(f"{shown(options.path, 300)}: exists already. Fix: --overwrite, or another -o")


def discard_partial(path: str) -> None:
    """Remove the partial file or folder of an unfinished output."""
    partial = partial_path(path)
    with writing(path):
        if partial.is_dir():
            from rerank_cli.formats.writing.parquet_sink import remove_parts

            remove_parts(partial)
        else:
            partial.unlink(missing_ok=True)


def check_side_file(
    path: str, flag: str, options: OutputOptions, inputs: Sequence[str], *, must_write: bool = True
) -> None:
    """Raise if a file beside the output (such as `--errors`) cannot be written, or is the output or an input.

    Unless `must_write`, an existing folder may be read-only: the run works without this file.
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
    """Open a new output, or continue an earlier run's output after what it `committed`.

    `columns` (of a Parquet input) and `shape` (of the input) determine the columns of Parquet output.
    """
    if options.path.endswith(_PARQUET):
        from rerank_cli.formats.writing.parquet_sink import ParquetSink  # pyarrow is imported only when needed

        return ParquetSink(options, columns, shape or Shape.RERANK, committed)
    render = renderer(options.format, options.answers, options.keep_errors)
    file, compression = _open_file(options.path, stdout, committed)
    begun = bool(committed and committed.length)
    return LineSink(file, render, compression, frame_of(options.format, options.answers), begun)


def open_lines(path: str, inputs: Sequence[str], overwrite: bool, stdout: BinaryIO | None) -> LineSink[Object]:
    """Check and open an output of JSON lines that are not outcomes of a run. Raises as the checks above do."""
    if path.endswith(_PARQUET):
        got = f"got the suffix {_PARQUET}"
        raise UsageError(f"{shown(path, 300)}: is written as JSON lines ({got}). Fix: another suffix")
    options = OutputOptions(path, OutputFormat.API, AnswerOptions(""), overwrite=overwrite)
    check_output(options, inputs, stdout)
    refuse_existing(options)
    file, compression = _open_file(path, stdout, None)
    return LineSink(file, json_line, compression, Frame())


def _open_file(path: str, stdout: BinaryIO | None, committed: Committed | None) -> tuple[ByteFile, str | None]:
    if path == STREAM:
        return Stream(stdout or sys.stdout.buffer, "<stdout>", owned=False), None
    return open_special(path) if is_special(path) else PartialFile(path, committed), compression_of(path)


def _check_folder(path: str, final: Path) -> None:
    folder = final.parent
    if not folder.is_dir():
        raise OutputError(f"{shown(path, 300)}: its folder does not exist. Fix: mkdir -p {shown(str(folder), 300)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{shown(path, 300)}: its folder cannot be written to")
