"""Opens a run, a file that names candidates by id, in any known format.

TREC and other columns of text; CSV; JSON, Parquet or Arrow with a row per pair or a list per query (MTEB's
`top_ranked`); a JSON object of results by query (BEIR, FlagEmbedding, MTEB). All but the last are streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import orjson

from rerank_cli.choices import InputFormat, RunValues
from rerank_cli.display import names
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.extent import Units
from rerank_cli.formats.options import InputOptions
from rerank_cli.formats.reading.csv_dialect import KNOWN
from rerank_cli.formats.reading.file_rows import Input
from rerank_cli.formats.reading.inputs import TABLES, format_of, json_input, open_table, table_input, text_input
from rerank_cli.formats.reading.lines import decode_line, json_rows
from rerank_cli.formats.runs.by_id import RunReader
from rerank_cli.formats.runs.columns import QUERY, columns_of, run_rows
from rerank_cli.formats.shapes.fields import present
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import BLOCK, BOM, Opened, open_bytes


def open_run(path: str, options: InputOptions, reader: RunReader, start: Place) -> Input:
    """Open a run, to be read from `start` on. Raises InputError if its format is unknown."""
    opened = open_bytes(path)
    values = options.by_id.values if options.by_id else RunValues.AUTO
    try:
        known = KNOWN.union(reader.query_id, reader.documents)
        format = options.format if options.format is not InputFormat.AUTO else format_of(opened, known)
        if format in TABLES:
            source = open_table(opened, format, start, known=known)
            return table_input(f"a run in {TABLES[format]}", source, start)
        head = opened.content.peek(BLOCK)
        begin = head.removeprefix(BOM).lstrip()
        if begin.startswith(b"{") and format is not options.format and not _is_row(begin, reader):
            found = text_input("results by query", opened, _results(opened, start))
            return replace(found, units=lambda: Units(sum(1 for _ in found.rows), rows=True))
        if format is InputFormat.JSON:
            return json_input(opened, start, "a run in a JSON")
        columns = None if format is InputFormat.JSONL else columns_of(head, opened.name, values)
        opened = opened.at(start.offset)
        content, name = opened.content, opened.name
        if columns:
            return text_input(columns.description, opened, run_rows(content, name, columns, start))
        return text_input("a run in JSON lines", opened, json_rows(content, name, start))
    except BaseException:
        opened.content.close()
        raise


def _is_row(begin: bytes, reader: RunReader) -> bool:
    """Whether the first line is a complete object that names a query and documents."""
    line, newline, _ = begin.partition(b"\n")
    if not newline and len(line) >= BLOCK:  # the line is longer than the block that was read
        return any(f'"{name}"'.encode() in line[:1000] for name in reader.query_id)
    try:
        value = decode_line(line)
    except BadRecord:
        return False
    return isinstance(value, dict) and present(value, reader.query_id) and present(value, reader.documents)


def _results(opened: Opened, start: Place) -> Iterator[Row | Rejection]:
    """One row per query: its documents with their scores. The whole object is held in memory."""
    try:
        value = orjson.loads(opened.content.read().removeprefix(BOM))
    except orjson.JSONDecodeError as error:
        raise InputError(f"{opened.name}: not a known run format, and broken JSON ({error})") from None
    for number, (query, documents) in enumerate(_by_query(value, opened.name).items()):
        if number >= start.rows:
            yield Row(Position(opened.name, number + 1, Place(start.file, number)), {QUERY: query, "docids": documents})


def _by_query(value: Json, name: str) -> dict[str, Json]:
    """{query: {document: score}}, also if nested under the names of a subset and a split."""
    found = value.get("search_results", value) if isinstance(value, dict) else value
    if isinstance(found, dict):
        found = {key: part for key, part in found.items() if key != "mteb_model_meta"}
    while isinstance(found, dict) and found:
        parts = list(found.values())
        if not all(isinstance(part, dict) for part in parts):
            break
        if not any(isinstance(inner, dict) for part in parts for inner in part.values()):
            return found
        if len(parts) > 1:
            raise InputError(f"{name}: contains several sets of results (got {names(found)}; expected one)")
        found = parts[0]
    if found == {}:
        return {}
    what = f"got {names(value)}" if isinstance(value, dict) else "got no object"
    raise InputError(f"{name}: not a known run format ({what}; expected {{query: {{document: score}}}})")
