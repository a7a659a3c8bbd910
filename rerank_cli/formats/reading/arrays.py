"""One JSON array to rows, an element each, however it is laid out in lines. One element in memory at a time.

Rows are numbered by element. An element that is broken in itself is rejected alone; where the array is broken between
elements, or ends too early, nothing behind that can be told, and the last row is a Rejection.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from rerank_cli.display import excerpt
from rerank_cli.errors import BadRecord
from rerank_cli.formats.reading.lines import MAX_LINE, decode_line
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection

_READ = 1 << 20
_BEGINNING = Place()
_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*")
_BETWEEN = re.compile(rb"\s*")
# A whole string, or what there is of one that the window cuts off; possessive, so that nothing is tried twice.
_STRING = rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'
_BRACKET_OR_STRING = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|[^\s,\[\]{}\"]+", re.DOTALL)


class _Window:
    """The bytes at hand: from `offset` of the content on, of which `at` is the next to look at."""

    def __init__(self, content: io.BufferedReader, offset: int) -> None:
        self._content = content
        self._data = b""
        self._offset = offset
        self.at = 0

    @property
    def offset(self) -> int:
        return self._offset + self.at

    @property
    def data(self) -> bytes:
        return self._data

    def rest(self, most: int = 4096) -> bytes:
        return self._data[self.at : self.at + most]

    def more(self) -> bool:
        """Read on, as much again as there is of an element, and forget what lies behind; False at the end."""
        kept = self._data[self.at :]
        block = self._content.read(max(_READ, len(kept)))
        self._offset += self.at
        self._data, self.at = kept + block, 0
        return bool(block)

    def skip(self, pattern: re.Pattern[bytes]) -> bool:
        """Pass over what matches here; False if nothing does."""
        found = pattern.match(self._data, self.at)
        while found is None or found.end() == len(self._data):
            goes_on = self.more()
            found = pattern.match(self._data, self.at)
            if not goes_on:
                break
        self.at = found.end() if found else self.at
        return found is not None

    def next_byte(self) -> bytes:
        """The next byte behind white space, which stays; empty at the end."""
        self.skip(_BETWEEN)
        return self._data[self.at : self.at + 1]

    def element(self) -> bytes | None:
        """The bytes of the element that begins here, None if it has no end."""
        scanned = depth = 0
        nested = self.next_byte() in (b"{", b"[")
        while True:
            end, scanned, depth = self._end(nested, scanned, depth)
            if end is not None:
                found = self._data[self.at : end]
                self.at = end
                return found
            if len(self._data) - self.at > MAX_LINE or not self.more():
                return None

    def _end(self, nested: bool, scanned: int, depth: int) -> tuple[int | None, int, int]:
        """Where the element ends in what is at hand; else how far it was looked through, and how deep that is."""
        size = len(self._data)
        if not nested:
            found = _SCALAR.match(self._data, self.at)
            return (found.end() if found and found.end() < size else None), 0, 0
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


def array_rows(content: io.BufferedReader, name: str, start: Place = _BEGINNING) -> Iterator[Row | Rejection]:
    """One row an element, from `start` on, where `content` stands."""
    window = _Window(content, start.offset)
    rows = start.rows
    if not start.offset and not window.skip(_OPENING):
        return
    after_comma, broken = bool(start.offset), False
    while not broken and (after_comma or window.next_byte() != b"]"):
        broken = window.next_byte() in (b"", b",", b"]")
        position, begun = Position(name, rows + 1, Place(start.file, rows, window.offset)), window.rest()
        raw = None if broken else window.element()
        if raw is None:
            yield _broken(position, begun)
            break
        yield _row(position, raw)
        rows += 1
        after_comma = window.next_byte() == b","
        window.at += after_comma
        broken = not after_comma and window.next_byte() != b"]"
    else:
        window.at += not broken
        if window.next_byte() or broken:
            yield _broken(Position(name, rows + 1, Place(start.file, rows, window.offset)), window.rest())
    while content.read(_READ):
        pass


def _row(position: Position, raw: bytes) -> Row | Rejection:
    try:
        return Row(position, decode_line(raw + b"\n"), raw)
    except BadRecord as error:
        return Rejection(position, error.code, str(error), raw=excerpt(raw))


def _broken(position: Position, begun: bytes) -> Rejection:
    what = "goes on in a way that is no JSON" if begun.strip() else "ends too early"
    message = f"the JSON array {what} (element {position.line}); nothing behind that can be read"
    return Rejection(position, "torn_array", message, raw=excerpt(begun))
