"""What a run wrote, read again: answers, rows of pairs, batch envelopes and TREC runs as one `Reranked` a query.

Streams one query at a time, in file order. Rejections that stand in the place of an answer are counted and passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from rerank_cli.display import names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.reading.lines import decode_line, numbered_lines
from rerank_cli.formats.reading.parquet import ParquetInput
from rerank_cli.formats.shapes.fields import DOC_ID, PAIR_QUERY_ID, Names, a_number, an_id, first, first_number, key_of
from rerank_cli.formats.shapes.pairs import pair_names
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Json, Place, Position, Rejection
from rerank_cli.storage.opening import PARQUET_MAGIC, open_bytes, stamp_of

_NAMES = Names()
_EXPECTED = "expected `results`, `data`, or rows with `relevance_score`"


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate as it was ranked.

    `id` is its own id as a string, its index where it has none. `index` counts from 0 in the list that was given.
    `score` is what was written, `logit` what stood beside it. All but `id` and `score` may be unknown.
    """

    id: str
    score: float
    index: int | None = None
    logit: float | None = None
    first_score: float | None = None
    title: str | None = None
    text: str | None = None
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class Reranked:
    """One query with its results, best first. `query` is its text, `tokens` those of all its pairs, where known."""

    id: str
    query: str | None
    results: tuple[Result, ...]
    position: Position
    tokens: int | None = None
    model: str | None = None


class RerankedFile:
    """An output of a run, to be iterated once. `rejected` counts the errors met in the place of answers."""

    def __init__(self, path: str) -> None:
        stamp_of(path)
        self.rejected = 0
        self._opened = open_bytes(path)
        self._parquet: ParquetInput | None = None
        if self._opened.content.peek(len(PARQUET_MAGIC)).startswith(PARQUET_MAGIC):
            self._parquet = ParquetInput(self._opened)

    def __iter__(self) -> Iterator[Reranked]:
        group: list[Row] = []
        for row in self._rows():
            value = _body(row.value)
            if value is None:
                self.rejected += 1
            elif "results" in value or "data" in value:
                yield from _grouped(group)
                group = []
                yield answer_from(value, row.position)
            elif "relevance_score" in value:
                if group and _query_key(group[0].value) != _query_key(value):
                    yield from _grouped(group)
                    group = []
                group.append(row)
            else:
                got = f"got {names(value)}; {_EXPECTED}"
                raise InputError(f"{row.position}: holds no ranking ({got})")
        yield from _grouped(group)

    def close(self) -> None:
        (self._parquet or self._opened.content).close()

    def _rows(self) -> Iterator[Row]:
        found: Iterator[Row | Rejection]
        if self._parquet:
            found = self._parquet.rows(Place())
        else:
            found = _line_rows(numbered_lines(self._opened.content, self._opened.name))
        for row in found:
            if isinstance(row, Rejection):
                raise InputError(str(row))
            if not isinstance(row.value, dict):
                raise InputError(f"{row.position}: holds no ranking ({_EXPECTED})")
            yield row


def _line_rows(lines: Iterator[tuple[Position, bytes] | Rejection]) -> Iterator[Row | Rejection]:
    """JSON lines; lines of a TREC run become rows of pairs without texts."""
    head = next(lines, None)
    if head is None:
        return
    is_json = isinstance(head, Rejection) or head[1].lstrip().startswith(b"{")
    for item in chain([head], lines):
        if isinstance(item, Rejection):
            yield item
            continue
        position, line = item
        try:
            yield Row(position, decode_line(line) if is_json else _trec_row(line))
        except BadRecord as error:
            whole = "; a run that is one JSON object is for rerank eval" if is_json and position.line == 1 else ""
            yield Rejection(position, error.code, f"{error}{whole}")


def _trec_row(line: bytes) -> Json:
    cells = line.decode("utf-8", "replace").split()
    try:
        query, _, document, _, score, _ = cells
        return {"query_id": query, "docid": document, "relevance_score": float(score)}
    except ValueError:
        got = f"got {len(cells)} columns; {_EXPECTED}, or lines of a TREC run"
        raise BadRecord("bad_trec_line", f"holds no ranking ({got})") from None


def _body(value: dict[str, Json]) -> dict[str, Json] | None:
    """The answer in a row, out of its envelope if it came in one; None for an error in its place."""
    if "response" in value and "custom_id" in value:
        response = value["response"]
        body = response.get("body") if isinstance(response, dict) else None
        return {**body, "id": value["custom_id"]} if isinstance(body, dict) else None
    return None if value.get("error") is not None else value


def answer_from(value: dict[str, Json], position: Position) -> Reranked:
    """One answer in the shape of the APIs."""
    items = value["results"] if value.get("results") is not None else value.get("data")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(f"{position}: its results are no list of objects")
    results = [_result(item, position) for item in items]
    if value.get("results") is None:
        best = [
            _score(item, "fused_score", position) if "fused_score" in item else result.score
            for item, result in zip(items, results, strict=True)
        ]
        results = [results[place] for place in sorted(range(len(best)), key=lambda place: -best[place])]
    usage = value.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    query = value.get("query")
    return Reranked(
        key_of(value.get("id")),
        query if isinstance(query, str) else None,
        tuple(results),
        position,
        tokens if isinstance(tokens, int) else None,
        value.get("model"),
    )


def _result(item: dict[str, Json], position: Position) -> Result:
    document = item.get("document")
    source: dict[str, Json] = document if isinstance(document, dict) else {}
    nested = source.get("doc")
    inner: dict[str, Json] = nested if isinstance(nested, dict) else {}
    name = next(
        (found for where in (source, inner, item) if (found := first(where, DOC_ID).value) is not None),
        item.get("index"),
    )
    text = document if isinstance(document, str) else _text(source)
    title = source.get("title") or inner.get("title")
    return Result(
        key_of(name),
        _score(item, "score" if "object" in item else "relevance_score", position),
        item["index"] if isinstance(item.get("index"), int) else None,
        a_number(item.get("logit")),
        first_number(item, ("retrieval_score",)) if document is None else first_number(source),
        title if isinstance(title, str) else None,
        text,
        item.get("truncated"),
    )


def _text(source: dict[str, Json]) -> str | None:
    found = first(source, _NAMES.text).value
    nested = source.get("doc")
    if found is None and nested is not None:
        found = first(nested, _NAMES.text).value if isinstance(nested, dict) else nested
    return found if isinstance(found, str) else None


def _query_key(row: dict[str, Json]) -> Json:
    found = first(row, PAIR_QUERY_ID)
    return first(row, _NAMES.query).value if found.name is None else found.value


def _grouped(rows: list[Row]) -> Iterator[Reranked]:
    """Rows of one query, by rank where all have one; nothing where there are none."""
    if not rows:
        return
    known = pair_names(rows[0].value, _NAMES).names
    results = [_pair(row, known) for row in rows]
    ranks = [rank for row in rows if (rank := a_number(row.value.get("rank"))) is not None]
    order = ranks if len(ranks) == len(rows) else [-result.score for result in results]
    results = [results[place] for place in sorted(range(len(rows)), key=order.__getitem__)]
    query = first(rows[0].value, known.query).value
    name = _query_key(rows[0].value)
    yield Reranked(key_of(name), query if isinstance(query, str) else None, tuple(results), rows[0].position)


def _pair(row: Row, known: Names) -> Result:
    value = row.value
    index = value.get("index")
    try:
        name = an_id(first(value, known.doc_id).value, "document id")
    except BadRecord as error:
        raise InputError(f"{row.position}: {error}") from None
    title = value.get("title")
    return Result(
        key_of(index if name is None else name),
        _score(value, "relevance_score", row.position),
        index if isinstance(index, int) else None,
        a_number(value.get("logit")),
        first_number(value),
        title if isinstance(title, str) else None,
        _text(value),
        value.get("truncated"),
    )


def _score(item: dict[str, Json], name: str, position: Position) -> float:
    value = item.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    got = f"got {shown(repr(value))}, expected a number"
    raise InputError(f"{position}: `{name}` cannot be used ({got})")
