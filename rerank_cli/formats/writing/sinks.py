"""Checks an output path before any work is done, and opens the output as its suffix says."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from rerank_cli.choices import OutputFormat
from rerank_cli.display import shown
from rerank_cli.errors import OutputError, RefusedError, UsageError
from rerank_cli.formats.contract import ArrowSchema, Sink
from rerank_cli.formats.options import AnswerOptions, OutputOptions
from rerank_cli.formats.writing.answers import Object
from rerank_cli.formats.writing.containers import (
    Container,
    check_kind,
    check_suffix,
    container_of,
    refuse_folder,
)
from rerank_cli.formats.writing.line_sink import LineSink, json_line, renderer
from rerank_cli.formats.writing.run_files import Frame, frame_of
from rerank_cli.records import Shape
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.files import Committed, Stream, open_special, writing
from rerank_cli.storage.outputs import check_writable, exists
from rerank_cli.storage.partial_file import ByteFile, PartialFile
from rerank_cli.storage.paths import STREAM, final_path, is_special, partial_of, partial_path, refuse_if_input
from rerank_cli.storage.remote import is_remote

T = TypeVar("T")
ARRAY = Frame(b"[\n", b",\n", b"\n]\n")
_SIDE_FILES = {
    "--errors": ("JSON lines", (".jsonl", ".ndjson")),
    "--summary": ("one JSON object", (".json", ".jsonl", ".ndjson")),
    "--metrics": ("Prometheus' text", (".prom",)),
}


def check_output(options: OutputOptions, inputs: Sequence[str], stdout: BinaryIO | None = None) -> None:
    """Raise UsageError, RefusedError or OutputError if the output cannot be written."""
    path, wanted = options.path, options.format
    check_suffix(path, wanted)
    if wanted.is_run and options.keep_errors:
        raise UsageError(f"--format {wanted} cannot contain errors. Fix: --on-error skip with --errors FILE")
    if is_special(path) and (compression_of(path) or container_of(path, wanted) is Container.PARQUET):
        raise UsageError(f"{shown(path, 300)}: is a device or a pipe (expected a file for this kind of output)")
    check_path(path, inputs, stdout)


def check_path(path: str, inputs: Sequence[str], stdout: BinaryIO | None = None) -> None:
    """Raise UsageError, RefusedError or OutputError if no file can be written there."""
    if not path:
        raise UsageError("the output path is empty. Fix: -o FILE")
    refuse_folder(path)
    if path == STREAM:
        refuse_if_input(STREAM, inputs, stdout=stdout)
    elif is_remote(path):
        check_writable(path)
        refuse_if_input(path, inputs)
    elif not is_special(path):
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
    if not may_exist and exists(options.path):
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
    refuse_folder(path)
    if flag in _SIDE_FILES:
        check_kind(path, *_SIDE_FILES[flag])
    if is_special(path):
        return
    if is_remote(path):
        check_writable(path)
        refuse_if_input(path, inputs, f"another {flag}")
        if path == options.path:
            raise UsageError(f"{flag} and -o name the same file. Fix: another {flag}")
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

    `columns` (of a table as input) and `shape` (of the input) determine the columns of Parquet, CSV and TSV.
    """
    container = container_of(options.path, options.format)
    if container is Container.PARQUET:
        from rerank_cli.formats.writing.parquet_sink import ParquetSink  # pyarrow is imported only when needed

        return ParquetSink(options, columns, shape or Shape.RERANK, committed)
    frame = frame_of(options.format, options.answers)
    render = renderer(options.format, options.answers, options.keep_errors)
    if container is Container.JSON:
        frame, render = ARRAY, partial(_elements, render)
    elif container is not Container.LINES:
        from rerank_cli.formats.writing.delimited import delimited

        delimiter = "," if container is Container.CSV else "\t"
        frame, render = delimited(options, columns, shape or Shape.RERANK, delimiter)
    file, compression = _open_file(options.path, stdout, committed)
    return LineSink(file, render, compression, frame, begun=bool(committed and committed.length))


@contextmanager
def published(sink: Sink | LineSink[Object], path: str) -> Iterator[None]:
    """Publish an output that is written in one go, or remove it after an error."""
    try:
        yield
        sink.publish()
    except BaseException:
        sink.abandon()
        if partial_of(path):
            discard_partial(path)
        raise


def open_lines(path: str, inputs: Sequence[str], overwrite: bool, stdout: BinaryIO | None) -> LineSink[Object]:
    """Check and open an output of objects that are not outcomes of a run: JSON lines, or an array for `.json`.

    Raises as the checks above do.
    """
    check_kind(path, "JSON lines", (".jsonl", ".ndjson", ".json"), compressed=True)
    options = OutputOptions(path, OutputFormat.API, AnswerOptions(""), overwrite=overwrite)
    check_output(options, inputs, stdout)
    refuse_existing(options)
    file, compression = _open_file(path, stdout, None)
    if container_of(path, options.format) is Container.JSON:
        return LineSink(file, partial(_elements, json_line), compression, ARRAY)
    return LineSink(file, json_line, compression, Frame())


def _elements(render: Callable[[T], bytes], item: T) -> bytes:
    """JSON lines as elements of an array: with commas between, and without the last newline."""
    return render(item).rstrip(b"\n").replace(b"\n", ARRAY.between)


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
