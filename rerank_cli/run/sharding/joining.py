"""The outputs of shards as one file: the bytes that one run would have written.

Shards have whole chunks of that run, and a compressed output has one member a chunk, so most bytes are copied as they
are. What each output has around its records, a header or the brackets of an array, is written once.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from rerank_cli.choices import OutputFormat
from rerank_cli.display import shown
from rerank_cli.errors import RefusedError
from rerank_cli.formats.writing.containers import Container, container_of
from rerank_cli.formats.writing.run_files import Frame
from rerank_cli.formats.writing.sinks import ARRAY
from rerank_cli.storage.compression import compression_of, member, members
from rerank_cli.storage.opening import open_file

_BLOCK = 1 << 20
_BEIR = Frame(b"{\n", b",\n", b"\n}\n")
_NAMED_RESULTS, _RESULTS_END = b',"search_results":{\n', b"\n}}\n"


def join(paths: Sequence[str], file: BinaryIO) -> None:
    """Write the content of all files, in order, to an open file. RefusedError for a file that is not like the first."""
    if container_of(paths[0], OutputFormat.API) is Container.PARQUET:
        import pyarrow.parquet as pq

        from rerank_cli.formats.writing.parquet_join import join as join_rows

        with _opened(paths[0]) as first:
            schema = pq.read_schema(first)
        join_rows(paths, schema, file)
        return
    compression = compression_of(paths[0])
    frame, begun = frame_of(paths[0]), False
    for path in paths:
        for piece in _compressed(path, frame, compression, begun) if compression else _plain(path, frame, begun):
            file.write(piece)
            begun = True
    end = frame.closing if begun else frame.opening + frame.closing
    file.write(member(compression, end) if compression and (end or not begun) else end)


def frame_of(path: str) -> Frame:
    """What an output has around its records: the header of a table, the brackets of an array or of an object."""
    with _opened(path) as file:
        compression = compression_of(path)
        head = next((content for _, content in members(file, compression)), b"") if compression else file.read(_BLOCK)
    container = container_of(path, OutputFormat.API)
    line = head[: head.find(b"\n") + 1]
    if container is Container.CSV or (container is Container.TSV and head.startswith(b'"')):  # not lines of MS MARCO
        return Frame(_header(head, "," if container is Container.CSV else "\t"))
    if line.endswith(_NAMED_RESULTS):
        return Frame(line, _BEIR.between, _RESULTS_END)
    return next((frame for frame in (ARRAY, _BEIR) if line == frame.opening), Frame())


def _opened(path: str) -> io.BufferedReader:
    """Local or remote; a read returns all that it was asked for."""
    return io.BufferedReader(cast("io.RawIOBase", open_file(path)), _BLOCK)


def _header(head: bytes, delimiter: str) -> bytes:
    """The lines of a table's header: a quoted name may have line breaks."""
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for line in head.splitlines(keepends=True):
            taken.append(line)
            yield line.decode("utf-8", "surrogateescape")

    next(csv.reader(lines(), delimiter=delimiter), None)
    return b"".join(taken)


def _plain(path: str, frame: Frame, begun: bool) -> Iterator[bytes]:
    """The records of an uncompressed output, with what stands before them after others; nothing if it has none."""
    with _opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        opening = file.read(len(frame.opening))
        left = size - len(frame.opening) - len(frame.closing)
        if left > 0:
            file.seek(-len(frame.closing), 2)
        closing = file.read(len(frame.closing))
        if opening != frame.opening or closing != frame.closing:
            raise _unlike(path)
        if left == 0:
            return
        yield frame.between if begun else frame.opening
        file.seek(len(frame.opening))
        while left and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block


def _compressed(path: str, frame: Frame, compression: str, begun: bool) -> Iterator[bytes]:
    """The members of a compressed output. The first one has the opening, a last one of its own the closing."""
    first = True
    with _opened(path) as file:
        for raw, content in members(file, compression):
            if first:
                if not content.startswith(frame.opening):
                    raise _unlike(path)
                first = False
                records = content.removeprefix(frame.opening)
                if records and records != frame.closing:
                    yield member(compression, frame.between + records) if begun and frame.opening else raw
            elif content != frame.closing or not content:
                yield raw


def _unlike(path: str) -> RefusedError:
    return RefusedError(f"{shown(path, 300)}: does not begin and end as the first shard does. Fix: write it again")
