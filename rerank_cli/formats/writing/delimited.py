"""Rankings as CSV (RFC 4180), one row per pair, with a header; TSV is the same with tabs between cells.

The columns are those of Parquet output, see `parquet_layout`; of TSV input, its own. Cells with a delimiter, a quote or
a line break are quoted, and so are the names in the header of TSV: that tells it from lines without quoting.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pyarrow as pa

from rerank_cli.display import names
from rerank_cli.errors import InputError
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.options import OutputOptions
from rerank_cli.formats.shapes.rows import unusual
from rerank_cli.formats.writing.parquet_layout import Layout, layout
from rerank_cli.formats.writing.run_files import Frame
from rerank_cli.records import Json, Outcome, Ranking, Shape


def delimited(
    options: OutputOptions, columns: ArrowSchema | None, shape: Shape, delimiter: str
) -> tuple[Frame, Callable[[Outcome], bytes]]:
    """The frame, which has the header, and the function that renders an outcome."""
    found = layout(options, columns, shape)
    header = [_quoted(name) if delimiter == "\t" else _cell(name, _special(delimiter)) for name in found.schema.names]
    render = partial(_render, found, _nanoseconds(found.schema), delimiter, _special(delimiter))
    return Frame(opening=f"{delimiter.join(header)}\n".encode()), render


def _special(delimiter: str) -> re.Pattern[str]:
    """Characters for which a cell is quoted."""
    return re.compile(f'[{delimiter}"\\r\\n]')


def _render(
    layout: Layout, nanoseconds: dict[str, Any], delimiter: str, special: re.Pattern[str], outcome: Outcome
) -> bytes:
    columns = layout.schema.names
    lines = []
    for row in layout.rows_of([outcome]):
        if len(row) > len(columns) or not row.keys() <= set(columns):
            where = outcome.request.position if isinstance(outcome, Ranking) else outcome.position
            new = names(name for name in row if name not in columns)
            fix = "Fix: -o with the suffix .jsonl, or one file per run"
            raise InputError(f"{where}: the header of the output lacks a column (got {new}). {fix}")
        for name, kind in nanoseconds.items():
            if isinstance(row.get(name), int):
                row[name] = pa.scalar(row[name], kind).cast(pa.string()).as_py()
        lines.append(delimiter.join([_cell(row.get(name), special) for name in columns]) + "\n")
    return "".join(lines).encode("utf-8", "surrogatepass")


def _cell(value: Json, special: re.Pattern[str]) -> str:
    """A value as text: nothing for null, JSON for objects and lists, else as JSON and Python print it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif isinstance(value, dict | list):
        value = orjson.dumps(value, default=unusual, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    text = value if isinstance(value, str) else str(value)
    return _quoted(text) if special.search(text) else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _nanoseconds(schema: ArrowSchema) -> dict[str, Any]:
    """The columns whose values are read as integers, because Python's types have no nanoseconds."""
    kinds = ((field.name, field.type) for field in schema)
    return {
        name: kind for name, kind in kinds if getattr(kind, "unit", None) == "ns" and not pa.types.is_duration(kind)
    }
