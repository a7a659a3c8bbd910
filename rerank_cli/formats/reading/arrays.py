"""Rows of JSON in any layout: one array of records, or records one after the other. Only one is in memory at a time.

Elements of an array are numbered from 1, other records have the number of their first line. A broken record is rejected
alone. If the file is broken between records or ends too early, those after that point cannot be found, and the last row
is a Rejection.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import orjson

from rerank_cli.display import excerpt
from rerank_cli.errors import BadRecord
from rerank_cli.formats.reading.lines import BEGINNING, MAX_LINE, decode_line
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection

_READ = 1 << 20
_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*")
_MARK = re.compile(rb"\xef\xbb\xbf|")
_BETWEEN = re.compile(rb"\s*")
# A string, or the part of it up to the end of the buffer. Possessive quantifier: no backtracking.
_STRING = rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'
_BRACKET_OR_STRING = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|[^\s,\[\]{}\"]+", re.DOTALL)


class _Buffer:
    """The bytes read and not yet consumed. `at` is the index of the next byte, `offset` its offset in the content.

    `lines` counts the line breaks consumed.
    """

    def __init__(self, content: io.BufferedReader, offset: int, lines: int = 0) -> None:
        self._content = content
        self._data = b""
        self._before = offset
        self.at = 0
        self.lines = lines

    @property
    def offset(self) -> int:
        return self._before + self.at

    def more(self) -> bool:
        """Drop the consumed bytes, and read what is there, or as many as remain; False at the end."""
        kept = self._data[self.at :]
        block = self._content.read1(_READ) if len(kept) < _READ else self._content.read(len(kept))
        self._before += self.at
        self._data, self.at = kept + block, 0
        return bool(block)

    def skip(self, pattern: re.Pattern[bytes]) -> bool:
        """Consume what matches here; False if nothing does."""
        while True:
            found = pattern.match(self._data, self.at)
            length = found.end() - self.at if found else 0
            if (found and found.end() < len(self._data)) or not self.more():
                self.lines += self._data.count(b"\n", self.at, self.at + length)
                self.at += length
                return found is not None

    def next_bytes(self, most: int = 1) -> bytes:
        """Skip white space and return the next bytes without consuming them; empty at the end."""
        self.skip(_BETWEEN)
        return self._data[self.at : self.at + most]

    def element(self) -> bytes | None:
        """Consume the element that begins here; None if it has no end or is too large."""
        nested = self.next_bytes() in (b"{", b"[")
        scanned = depth = 0
        end = None
        while end is None:
            if nested:
                end, scanned, depth = self._nested_end(scanned, depth)
            elif (found := _SCALAR.match(self._data, self.at)) and found.end() < len(self._data):
                end = found.end()
            if end is None and (len(self._data) - self.at > MAX_LINE or not self.more()):
                return None
        element, self.at = self._data[self.at : end], end
        self.lines += element.count(b"\n")
        return element

    def _nested_end(self, scanned: int, depth: int) -> tuple[int | None, int, int]:
        """The end of an object or array in the buffer; if None, how many bytes are scanned and the depth there."""
        size = len(self._data)
        for token in _BRACKET_OR_STRING.finditer(self._data, self.at + scanned):
            first = self._data[token.start()]
            if first == 0x22:
                if token.end() == size:
                    return None, token.start() - self.at, depth
                continue
            depth += 1 if first in b"[{" else -1
            if depth == 0:
                return token.end(), 0, 0
        return None, size - self.at, depth


def array_rows(content: io.BufferedReader, name: str, start: Place = BEGINNING) -> Iterator[Row | Rejection]:
    """One row per element. `content` is positioned at `start`."""
    buffer = _Buffer(content, start.offset)
    rows = start.rows
    if not start.offset and not buffer.skip(_OPENING):
        return
    torn, closed = False, not start.offset and buffer.next_bytes() == b"]"
    while not torn and not closed:
        torn = buffer.next_bytes() in (b"", b",", b"]")
        position = Position(name, rows + 1, Place(start.file, rows, buffer.offset))
        raw = None if torn else buffer.element()
        if raw is None:
            torn = True
            break
        try:
            yield Row(position, decode_line(raw + b"\n"), raw)
        except BadRecord as error:
            yield Rejection(position, error.code, str(error), raw=excerpt(raw))
        rows += 1
        following = buffer.next_bytes()
        torn, closed = following not in (b",", b"]"), following == b"]"
        buffer.at += following == b","
    buffer.at += closed
    begun = buffer.next_bytes(4096)
    if begun or torn:
        what = "is broken" if begun else "ends too early"
        message = f"the JSON array {what} (element {rows + 1}); no element after it can be read"
        position = Position(name, rows + 1, Place(start.file, rows, buffer.offset))
        yield Rejection(position, "torn_array", message, raw=excerpt(begun))
    while content.read(_READ):
        pass


def object_rows(content: io.BufferedReader, name: str, start: Place = BEGINNING) -> Iterator[Row | Rejection]:
    """One row per record of a file of objects over several lines each. `content` is positioned at `start`."""
    buffer = _Buffer(content, start.offset, start.rows)
    if not start.offset:
        buffer.skip(_MARK)
    while begun := buffer.next_bytes(4096):
        position = Position(name, buffer.lines + 1, Place(start.file, buffer.lines, buffer.offset))
        raw = buffer.element()
        if raw is None:
            message = "the JSON object does not end; no record after it can be read"
            yield Rejection(position, "torn_object", message, raw=excerpt(begun))
            break
        try:
            yield Row(position, decode_line(raw + b"\n"), raw)
        except BadRecord as error:
            yield Rejection(position, error.code, _located(error, raw, position.line), raw=excerpt(raw))
    while content.read(_READ):
        pass


def _located(error: BadRecord, raw: bytes, line: int) -> str:
    """The message of a record over several lines, with the line and column where its JSON is broken."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as broken:
        if error.code == "bad_json":
            return f"broken JSON ({broken.msg} at line {line + broken.lineno - 1}, column {broken.colno})"
    return str(error)


def is_spread(begin: bytes) -> bool:
    """Whether a file that begins so, with `{`, has objects over several lines, and not one on every line."""
    line, newline, rest = begin.partition(b"\n")
    if not newline:
        return False
    if line.rstrip() == b"{":
        return rest.lstrip()[:1] in (b"", b'"', b"}")
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return rest.startswith((b" ", b"\t"))
    return False
