"""Bytes to lines, and lines to JSON values: split on the newline byte alone, one line in memory at a time.

A line that cannot be decoded becomes a Rejection with its own code; the lines after it are read all the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import orjson

from rerank_cli.display import excerpt
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BOM

MAX_LINE = 512 << 20
_SKIP = 1 << 20
_BEGINNING = Place()
# orjson reads 1024 levels but writes 254. What is carried through must be writable, a few levels down in an answer.
_MANY_BRACKETS = 200


def numbered_lines(
    content: io.BufferedReader, name: str, start: Place = _BEGINNING
) -> Iterator[tuple[Position, bytes] | Rejection]:
    """Lines that are not blank, with their positions and with their newline where they have one.

    `content` stands at `start`. The last line of a file that does not end in a newline is yielded like all others.
    """
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
            offset += _pass_over(content)
            message = f"the line is too long (got more than {MAX_LINE >> 20} MiB)"
            yield Rejection(position, "line_too_long", message, raw=raw)
        elif not line.isspace() and line:
            yield position, line


def _pass_over(content: io.BufferedReader) -> int:
    """Read the rest of a line without keeping it; its length."""
    length = 0
    while block := content.readline(_SKIP):
        length += len(block)
        if block.endswith(b"\n"):
            break
    return length


def json_rows(content: io.BufferedReader, name: str, start: Place = _BEGINNING) -> Iterator[Row | Rejection]:
    """One row a line of JSON, from `start` on."""
    for item in numbered_lines(content, name, start):
        if isinstance(item, Rejection):
            yield item
            continue
        position, line = item
        try:
            yield Row(position, decode_line(line), line)
        except BadRecord as error:
            yield Rejection(position, error.code, str(error), raw=excerpt(line))


def decode_line(line: bytes) -> Json:
    """The JSON value of a line. Raises BadRecord."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _broken(line, error) from None
    if line.count(b"{") + line.count(b"[") > _MANY_BRACKETS:
        check_depth(value)
    return value


def check_depth(value: Json) -> None:
    """Raise BadRecord if the value is nested too deeply to be written out again inside an answer."""
    try:
        orjson.dumps([[[[[[[[value]]]]]]]])
    except TypeError:
        raise BadRecord("too_deep", "the record is nested too deeply (expected at most 240 levels)") from None


def _broken(line: bytes, error: orjson.JSONDecodeError) -> BadRecord:
    if not line.strip(b"\0\r\n"):
        return BadRecord("nul_bytes", f"the line is nothing but NUL bytes ({len(line)} of them)")
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as wrong:
        message = f"the line is not valid UTF-8 (got byte 0x{line[wrong.start]:02x} at column {wrong.start + 1})"
        return BadRecord("bad_utf8", message)
    column = error.pos + 1
    if not line.endswith(b"\n"):
        return BadRecord("torn_line", f"the last line is cut off or broken JSON ({error.msg} at column {column})")
    return BadRecord("bad_json", f"broken JSON ({error.msg} at column {column})")
