"""Bytes to lines, and lines to JSON values: split at newline bytes only, one line in memory at a time.

A line that cannot be decoded becomes a Rejection with its own code; reading continues with the next line.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator

import orjson

from rerank_cli.display import excerpt
from rerank_cli.errors import BadRecord
from rerank_cli.formats.extent import Reached
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BOM

MAX_LINE = 512 << 20
BEGINNING = Place()
HEADER = object()
_SKIP = 1 << 20
_COUNTED = 8 << 20
_BLANK = re.compile(rb"\n[ \t\r\x0b\x0c]*(?=\n)")
# orjson reads 1024 levels but writes 254. A record must be writable some levels deeper, inside an answer.
_MANY_BRACKETS = 200


def numbered_lines(
    content: io.BufferedReader, name: str, start: Place = BEGINNING
) -> Iterator[tuple[Position, bytes] | Rejection]:
    """Lines that are not blank, with their positions and newlines. `content` is positioned at `start`."""
    rows, offset = start.rows, start.offset
    while line := content.readline(MAX_LINE + 1):
        position = Position(name, rows + 1, Place(start.file, rows, offset))
        rows += 1
        offset += len(line)
        if offset == len(line) and line.startswith(BOM):
            line = line[len(BOM) :]
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            raw = excerpt(line[:4096])
            del line
            while block := content.readline(_SKIP):
                offset += len(block)
                if block.endswith(b"\n"):
                    break
            message = f"the line is too long (got more than {MAX_LINE >> 20} MiB)"
            yield Rejection(position, "line_too_long", message, raw=raw)
        elif not line.isspace() and line:
            yield position, line


def lines_before(content: io.BufferedReader, offset: int) -> Reached:
    """The first line that is not blank and begins at or after `offset`, else the end. Such lines are records.

    Nothing is decoded.
    """
    lines = records = at = 0
    while at < offset and (block := content.read(min(_COUNTED, offset - at))):
        if not block.endswith(b"\n"):
            block += content.readline()
        text = b"\n" + (block if at else block.removeprefix(BOM)) + (b"" if block.endswith(b"\n") else b"\n")
        at += len(block)
        count = text.count(b"\n") - 1
        lines += count
        records += count - sum(1 for _ in _BLANK.finditer(text))
    while (line := content.readline()) and line.isspace():
        lines += 1
        at += len(line)
    return Reached(lines, at, records)


def json_rows(content: io.BufferedReader, name: str, start: Place = BEGINNING) -> Iterator[Row | Rejection]:
    """One row per line of JSON, from `start` on."""
    return decoded(numbered_lines(content, name, start), decode_line)


def decoded(
    lines: Iterable[tuple[Position, bytes] | Rejection], decode: Callable[[bytes], Json]
) -> Iterator[Row | Rejection]:
    """A row for each line, with the value that `decode` returns, and none if it returns HEADER.

    A BadRecord raised by `decode` becomes a rejection.
    """
    for item in lines:
        if isinstance(item, Rejection):
            yield item
            continue
        position, line = item
        try:
            value = decode(line)
            if value is not HEADER:
                yield Row(position, value, line)
        except BadRecord as error:
            yield Rejection(position, error.code, str(error), raw=excerpt(line))


def decode_line(line: bytes) -> Json:
    """The JSON value of a line. Raises BadRecord, also if the value is nested too deeply to be written in an answer."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if not line.strip(b"\0\r\n"):
            raise BadRecord("nul_bytes", f"the line has only NUL bytes (got {len(line)} bytes)") from None
        utf8_text(line)
        code, what = "bad_json", "broken JSON"
        if not line.endswith(b"\n"):
            code, what = "torn_line", "the last line is cut off or broken JSON"
        raise BadRecord(code, f"{what} ({error.msg} at column {error.pos + 1})") from None
    if line.count(b"{") + line.count(b"[") > _MANY_BRACKETS:
        try:
            orjson.dumps([[[[[[[[value]]]]]]]])
        except TypeError:
            raise BadRecord("too_deep", "the record is nested too deeply (expected at most 240 levels)") from None
    return value


def utf8_text(line: bytes) -> str:
    """The line as text. Raises BadRecord if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as wrong:
        message = f"the line is not valid UTF-8 (got byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})"
        raise BadRecord("bad_utf8", message) from None
