"""Rows of CSV as RFC 4180 defines it: a header, quoted cells with delimiters, line breaks and doubled quotes inside.

Cells are text, but for columns of scores, and of lists of texts, which are JSON. An empty cell is null, except in the
column of the query or the text, where it is "".

A place is the number of lines and the offset in bytes of a row's first line. A row that cannot be read is rejected, and
reading continues at its second line if it has several: a stray quote costs one line, not all up to the next quote.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence, Set
from contextlib import suppress
from itertools import islice

import orjson

from rerank_cli.display import excerpt, names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.extent import Units
from rerank_cli.formats.reading.csv_dialect import KNOWN, delimiter_of, most_cells
from rerank_cli.formats.reading.lines import BEGINNING
from rerank_cli.formats.shapes.fields import QUERY, TEXT
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BOM, Opened, open_bytes

MAX_ROW = 64 << 20
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,14})")
_SEPARATOR = re.compile(rb"sep=([,;|\t])\r?\n")  # a first line that Excel writes and reads
_SAMPLE = 100
_DOUBLE = "Fix: write it with quotes doubled (Spark: .option('escape', '\"'))"


class _TooLong(Exception):
    pass


class _Lines:
    """Lines as text for `csv.reader`, which takes as many as a row has. `row` are those of the row so far, as bytes."""

    def __init__(self, content: io.BufferedReader) -> None:
        self._content = content
        self._again: deque[bytes] = deque()
        self.begin()

    def begin(self) -> None:
        """Begin a new row."""
        self.row: list[bytes] = []
        self.problem = ""
        self._size = self._dropped = 0

    def give_back(self) -> None:
        """Keep only the first line of the row; the others are read again."""
        self._again.extendleft(reversed(self.row[1:]))
        del self.row[1:]

    @property
    def size(self) -> int:
        """The length of the row in bytes."""
        return sum(map(len, self.row)) + self._dropped

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._content.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.row.append(line)
        self._size += len(line)
        if self._size > MAX_ROW:
            end = line
            while len(self.row) == 1 and not end.endswith(b"\n") and (end := self._content.readline(1 << 20)):
                self._dropped += len(end)
            raise _TooLong
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as wrong:
            got = f"got byte 0x{line[wrong.start]:02x} in line {len(self.row)} of the row"
            fix = "Fix: iconv -f WINDOWS-1252 -t UTF-8, if that is its encoding"
            self.problem = self.problem or f"the row is not valid UTF-8 ({got}). {fix}"
            return line.decode("utf-8", "replace")


class CsvInput:
    """An open table, positioned at `start`. Raises InputError.

    `known` are column names by which the delimiter is found, `texts` those whose empty cells stay text, `numbers` and
    `lists` those that hold numbers or lists, if the first rows do.
    """

    def __init__(
        self,
        opened: Opened,
        start: Place = BEGINNING,
        known: Set[str] = KNOWN,
        texts: Collection[str] = (*QUERY, *TEXT),
        numbers: Collection[str] = (),
        lists: Collection[str] = (),
    ) -> None:
        self.name = opened.name
        csv.field_size_limit(MAX_ROW)
        if start.rows:
            with open_bytes(opened.path).content as content:
                self._read_header(content, known)
                self._find_types(content, numbers, lists)
            self.opened = opened.at(start.offset)
            self._rows_done, self._offset = start.rows, start.offset
        else:
            self.opened = opened
            self._rows_done, self._offset = self._read_header(opened.content, known)
            self._find_types(opened.content, numbers, lists)
        self._blanks = ["" if name in texts else None for name in self.columns]

    @property
    def schema(self) -> ArrowSchema:
        """The columns as an Arrow schema: text, numbers, or lists of texts."""
        import pyarrow as pa

        kinds = dict.fromkeys(self.columns, pa.string())
        kinds |= dict.fromkeys(self._numbers, pa.float64()) | dict.fromkeys(self._lists, pa.list_(pa.string()))
        return pa.schema(list(kinds.items()))

    def rows(self, start: Place) -> Iterator[Row | Rejection]:
        """The rows from where the input is positioned on; `start` has the number of the file."""
        lines = _Lines(self.opened.content)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        number, offset = self._rows_done, self._offset
        while True:
            lines.begin()
            value, code, problem = None, "bad_csv", ""
            try:
                cells = next(reader)
                code, problem = ("bad_utf8", lines.problem) if lines.problem else ("", "")
                if cells and not problem:
                    value = self._value(cells)
            except StopIteration:
                return
            except BadRecord as error:
                code, problem = error.code, str(error)
            except (csv.Error, _TooLong) as error:
                problem = _explained(error, lines.row)
            if problem:
                lines.give_back()
            raw = b"".join(lines.row)
            position = Position(self.name, number + 1, Place(start.file, number, offset))
            number += len(lines.row)
            offset += lines.size
            if raw.isspace():
                continue
            if problem:
                yield Rejection(position, code, problem, raw=excerpt(raw))
            else:
                yield Row(position, value, raw)

    def units(self) -> Units:
        """The number of bytes of content; see `Opened.length`."""
        return Units(self.opened.length())

    def taken(self) -> int:
        """Bytes on disk that have been read, read ahead included."""
        return self.opened.counted.taken

    def close(self) -> None:
        self.opened.content.close()

    def _value(self, cells: Sequence[str]) -> dict[str, Json]:
        """Raises BadRecord."""
        if len(cells) != len(self.columns):
            got = f"the row has {len(cells)} columns (expected {len(self.columns)})"
            raise BadRecord("bad_columns", got)
        columns = zip(self.columns, cells, self._blanks, strict=True)
        row: dict[str, Json] = {name: cell or blank for name, cell, blank in columns}
        for name in self._numbers:
            if row[name] is not None:
                value = self._number(row[name])
                if value is None:
                    got = f"got {shown(repr(row[name]), 40)}, expected a number as in the first rows"
                    raise BadRecord("bad_score", f"`{shown(name, 40)}` is not a number ({got})")
                row[name] = value
        for name in self._lists:
            if (cell := row[name]) is not None:
                row[name] = _texts(cell)
                if row[name] is None:
                    got = f"got {shown(repr(cell), 40)}, expected strings, as in the first rows"
                    raise BadRecord("bad_documents", f"`{shown(name, 40)}` is not a JSON list of strings ({got})")
        return row

    def _number(self, cell: str) -> float | None:
        """The number in a cell, with a decimal comma only if semicolons separate cells; None if there is none."""
        if self._delimiter == ";":
            cell = cell.replace(",", ".")
        if _INTEGER.fullmatch(cell):
            return int(cell)
        value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
        return value if math.isfinite(value) else None

    def _read_header(self, content: io.BufferedReader, known: Set[str]) -> tuple[int, int]:
        """Find delimiter and columns. Returns the lines and bytes before the first row."""
        rows, offset = 0, len(content.read(len(BOM))) if content.peek(len(BOM)).startswith(BOM) else 0
        head = content.peek(1)
        if b"\r" in head.rstrip() and b"\n" not in head:
            raise InputError(f"{self.name}: its lines end with CR alone (expected LF). Fix: tr '\\r' '\\n' < IN > OUT")
        if separator := _SEPARATOR.match(head):
            rows, offset = 1, offset + len(content.readline())
            self._delimiter = separator[1].decode()
        else:
            first = head.partition(b"\n")[0].decode("utf-8", "replace")
            self._delimiter = delimiter_of(first, known) or most_cells(first)
        lines = _Lines(content)
        try:
            header = next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])
        except (csv.Error, _TooLong) as error:
            raise InputError(f"{self.name}:{rows + 1}: the header: {_explained(error, lines.row)}") from error
        if lines.problem:
            raise InputError(f"{self.name}:{rows + 1}: {lines.problem}")
        self.columns = tuple(cell.strip() for cell in header)
        if known.isdisjoint(self.columns):
            got = f"got {names(self.columns)}; expected names such as query and text"
            fix = "Fix: add a line of names, or name them with --query-field and --text-field"
            raise InputError(f"{self.name}:{rows + 1}: the first line has no known column name ({got}). {fix}")
        if len(set(self.columns)) < len(self.columns):
            twice = names(name for name in dict.fromkeys(self.columns) if self.columns.count(name) > 1)
            raise InputError(
                f"{self.name}: several columns have one name (got {twice} more than once). Fix: rename them"
            )
        return rows + len(lines.row), offset + lines.size

    def _find_types(self, content: io.BufferedReader, numbers: Collection[str], lists: Collection[str]) -> None:
        """Find the columns of numbers, which the first rows have or nothing, and of lists, of which they have one."""
        self._numbers: list[str] = []
        self._lists: list[str] = []
        if not {*numbers, *lists}.intersection(self.columns):
            return
        sample = content.peek(1).rpartition(b"\n")[0].decode("utf-8", "replace")
        with suppress(csv.Error):
            reader = csv.reader(io.StringIO(sample, newline=""), delimiter=self._delimiter)
            rows = [cells for cells in islice(reader, _SAMPLE) if len(cells) == len(self.columns)]
            for index, name in enumerate(self.columns):
                cells = [row[index] for row in rows if row[index]]
                if name in numbers and all(self._number(cell) is not None for cell in cells):
                    self._numbers.append(name)
                elif name in lists and any(_texts(cell) is not None for cell in cells):
                    self._lists.append(name)


def _texts(cell: str) -> list[Json] | None:
    """The strings of a JSON list; None for anything else."""
    with suppress(orjson.JSONDecodeError):
        value = orjson.loads(cell)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    return None


def _explained(error: Exception, lines: Sequence[bytes]) -> str:
    """What is wrong with a row, in place of the words of Python's csv module."""
    if any(b'\\"' in line for line in lines):
        return f"the row has quotes after a backslash (expected doubled quotes, as in RFC 4180). {_DOUBLE}"
    if isinstance(error, _TooLong):
        return f"the row is too long, or a quoted cell does not end (got more than {MAX_ROW >> 20} MiB)"
    if "unexpected end" in str(error):
        return "a quoted cell of the row does not end"
    if "new-line" in str(error):
        return "a cell without quotes has a carriage return. Fix: quote it"
    return f"a cell goes on after its closing quote (expected doubled quotes inside a cell, as in RFC 4180). {_DOUBLE}"
