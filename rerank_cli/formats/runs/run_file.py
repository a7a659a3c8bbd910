"""Reads outputs of `rerank` and runs of other programs as one ranking per query.

Reads answers, rows of pairs, batch envelopes, TREC and MS MARCO lines, BEIR objects, and requests (the first stage).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import orjson

from rerank_cli.display import kind, names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.runs.results import (
    QueryResults,
    Result,
    Scores,
    by_score,
    check_documents,
    first_of,
    first_stage,
)
from rerank_cli.formats.runs.tables import a_mapping, open_rows
from rerank_cli.formats.shapes.detection import detect
from rerank_cli.formats.shapes.fields import PAIR_QUERY_ID, Names, a_number, an_id, first, first_stage_score, key_of
from rerank_cli.formats.shapes.hits import text_in
from rerank_cli.formats.shapes.pairs import pair_names
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.records import Json, Position, Shape

_REQUESTS = (Shape.RERANK, Shape.SCORE, Shape.CANDIDATES, Shape.BATCH, Shape.HITS)
_EXPECTED = "expected `results`, `data`, or rows with `relevance_score`"


class _Row(NamedTuple):
    """A row of one pair."""

    id: str
    query: str | None
    result: Result
    rank: float | None
    position: Position


class Found(NamedTuple):
    """The rankings of the wanted queries, and the number of other queries."""

    rankings: dict[str, QueryResults]
    others: int


def read_rankings(path: str, wanted: Collection[str], fields: Names | None = None) -> Found:
    """The rankings of the wanted queries. The rows of a query may be anywhere in the file.

    Raises InputError for a row that is not a ranking, and for a query or a document that occurs twice.
    """
    whole: dict[str, QueryResults] = {}
    rows: dict[str, list[_Row]] = {}
    with closing(RunFile(path, fields, scored=False, wanted=wanted)) as file:
        for item in file.items():
            if isinstance(item, _Row):
                rows.setdefault(item.id, []).append(item)
            elif item.id in whole:
                raise InputError(f"{item.position}: query {shown(item.id)} occurs twice (expected one ranking)")
            else:
                whole[item.id] = item
    found = whole | {query: _in_order(group) for query, group in rows.items()}
    for item in found.values():
        check_documents(item, file.name)
    return Found(found, len(file.others))


def best_of_run(path: str, depth: int) -> dict[str, Scores]:
    """Query id to `first_of` its scores, or of stand-ins. Memory is bounded by 4 · `depth` documents per query."""
    found: dict[str, Scores] = {}
    with closing(RunFile(path, scored=False)) as file:
        for number, item in enumerate(file.items()):
            if isinstance(item, _Row):
                scores = found.setdefault(item.id, {})
                scores[item.result.id] = _stated_score(item, number)
                if len(scores) >= 4 * depth:
                    found[item.id] = first_of(scores, depth)
            else:
                found[item.id] = first_of(item.measured, depth)
    return {query: first_of(scores, depth) for query, scores in found.items()}


def _stated_score(row: _Row, number: int) -> float:
    """What a single row says of its place: rank, score, first-stage score, or its number in the file."""
    if row.rank is not None:
        return -row.rank
    if not math.isnan(row.result.score):
        return row.result.score
    return -float(number) if row.result.first_score is None else row.result.first_score


class RunFile:
    """A file of rankings, to be iterated once: one `QueryResults` per query. Adjacent rows of one query are joined.

    `rejected` counts errors in place of answers. Unless `scored`, results need no score, but queries and documents
    need ids. With `wanted`, other queries are skipped and their ids are collected in `others`.
    """

    def __init__(
        self, path: str, fields: Names | None = None, *, scored: bool = True, wanted: Collection[str] | None = None
    ) -> None:
        self._table = open_rows(path)
        self.name = self._table.name
        self.close = self._table.close
        self.rejected = 0
        self.others: set[str] = set()
        self._fields = fields or Names()
        self._scored = scored
        self._wanted = wanted
        self._width = 0

    def __iter__(self) -> Iterator[QueryResults]:
        for query, group in groupby(self.items(), lambda item: item.id if isinstance(item, _Row) else None):
            if query is None:
                yield from (item for item in group if isinstance(item, QueryResults))
            else:
                yield _in_order([item for item in group if isinstance(item, _Row)])

    def items(self) -> Iterator[QueryResults | _Row]:
        """Complete rankings, and single rows, in file order. Raises InputError."""
        read = self._columns if self._table.columns else self._object
        for position, row in self._table.rows:
            try:
                yield from (item for item in read(row, position) if item is not None)
            except BadRecord as error:
                raise InputError(f"{position}: {error}") from None

    # All methods below raise BadRecord.

    def _wanted_id(self, name: Json) -> str | None:
        """The query id as text; None for a query that is not wanted, which is added to `others`."""
        if name is None and not self._scored:
            raise BadRecord("missing_id", "the record has no id (expected one, to find its relevance judgements)")
        query = key_of(name)
        if self._wanted is None or query in self._wanted:
            return query
        self.others.add(query)
        return None

    def _columns(self, row: list[str], position: Position) -> Iterator[_Row]:
        """A line of a TREC run (6 columns) or of an MS MARCO run (3)."""
        self._width = self._width or len(row)
        if len(row) != self._width or len(row) not in (3, 6):
            expected = f"expected {self._width}" if self._width in (3, 6) else "expected 6 (TREC) or 3 (qid pid rank)"
            raise BadRecord("bad_columns", f"not a line of a run (got {len(row)} columns, {expected})")
        rank = None
        if len(row) == 6:
            result = Result(row[2], self._score(row[4], "score"))
        else:
            result, rank = Result(row[1]), _number(row[2], "rank")
            if rank is None or rank < 1 or not rank.is_integer():
                fix = "Fix: for scores, a first line `query_id docid score` with tabs between"
                raise BadRecord("bad_rank", f"the rank is not a whole number from 1 (got {shown(row[2])}). {fix}")
            if self._scored:
                raise BadRecord("no_score", f"the run has no scores (got ranks; {_EXPECTED})")
        if self._wanted_id(row[0]) is not None:
            yield _Row(row[0], None, result, rank, position)

    def _object(self, row: Json, position: Position) -> Iterator[QueryResults | _Row | None]:
        """An answer, a row of a pair, a request, or a whole run in one object."""
        if not isinstance(row, dict):
            raise BadRecord("not_an_object", f"not a ranking (got {kind(row)}, expected an object)")
        results = row.get("search_results", row)
        if a_mapping(results):
            for query, scores in results.items():
                if self._wanted_id(query) is not None:
                    stated = {name: self._score(score, "score") for name, score in scores.items()}
                    found = by_score([Result(*pair) for pair in stated.items()], list(stated.values()))
                    yield QueryResults(query, None, tuple(found), position, scores=stated)
        elif "response" in row and "custom_id" in row:
            body = fields_of(row["response"]).get("body")
            if isinstance(body, dict):
                yield self._answer(body, row["custom_id"], position)
            else:
                self.rejected += 1
        elif any(isinstance(row.get(key), list) for key in ("results", "data")):
            yield self._answer(row, row.get("id"), position)
        elif row.get("error") is not None:
            self.rejected += 1
        elif row:
            yield self._other(row, position)

    def _answer(self, answer: dict[str, Json], query: Json, position: Position) -> QueryResults | None:
        """`results` are best first; `data`, in input order, is sorted by score, ties in input order."""
        if (name := self._wanted_id(query)) is None:
            return None
        best_first = isinstance(answer.get("results"), list)
        items = answer["results"] if best_first else answer.get("data") or []
        results = [self._result(item) for item in items]
        if not best_first:
            scores = [_number(item.get("fused_score", item.get("score")), "score") or 0.0 for item in items]
            ranked = sorted(zip(scores, results, strict=True), key=lambda pair: -pair[0])
            results = [result for _, result in ranked]
        tokens = fields_of(answer.get("usage")).get("total_tokens")
        tokens = tokens if isinstance(tokens, int) else None
        return QueryResults(name, a_string(answer.get("query")), tuple(results), position, tokens, answer.get("model"))

    def _result(self, item: Json) -> Result:
        if not isinstance(item, dict) or not isinstance(item.get("index"), int):
            got = names(item) if isinstance(item, dict) else kind(item)
            raise BadRecord("missing_index", f"a result has no `index` (got {got})")
        document = item.get("document")
        source = fields_of(document)
        inner = fields_of(source.get("doc"))
        # An id and a score beside a document are those of a hit, which may have others under a known name.
        ids = [first(where, self._fields.doc_id).value for where in (source, inner)]
        ids.insert(2 if "doc_id" in self._fields.mapped else 0, item.get("id"))
        name = next(found for found in (*ids, item["index"]) if found is not None)
        first_score = _number(item.get("retrieval_score"), "retrieval_score")
        if first_score is None and "id" not in item:
            first_score = _first_score(source)
        score_name = "score" if "object" in item or "relevance_score" not in item else "relevance_score"
        score = self._score(item.get(score_name), "relevance_score")
        title = a_string(source.get("title") or inner.get("title"))
        text = document if isinstance(document, str) else self._text(source)
        logit, truncated = a_number(item.get("logit")), item.get("truncated")
        return Result(key_of(name), score, item["index"], logit, first_score, title, text, truncated)

    def _other(self, row: dict[str, Json], position: Position) -> QueryResults | _Row | None:
        """A row of a pair, or a request with the first stage's ranking."""
        shape = detect(row, self._fields)
        if self._scored and (shape in _REQUESTS or "relevance_score" not in row):
            raise BadRecord("no_score", f"not a ranking (got {names(row)}; {_EXPECTED})")
        if shape not in _REQUESTS:
            return self._pair(row, position)
        request = request_from(row, shape, self._fields, position)
        if (name := self._wanted_id(request.id)) is None:
            return None
        ranked, scores = first_stage(request.candidates)
        return QueryResults(name, request.query, tuple(ranked), position, scores=scores)

    def _pair(self, row: dict[str, Json], position: Position) -> _Row | None:
        known = pair_names(row, self._fields).names
        query = an_id(first(row, known.id).value, "query id")
        document = an_id(first(row, known.doc_id).value, "document id")
        text, index = first(row, known.query).value, row.get("index")
        if self._scored:
            query = text if query is None and first(row, PAIR_QUERY_ID).name is None else query
            document = index if document is None else document
        elif query is None or document is None:
            missing = "query id" if query is None else "document id"
            raise BadRecord("missing_id", f"the row has no {missing} (got {names(row)})")
        if (name := self._wanted_id(query)) is None:
            return None
        index = index if isinstance(index, int) else None
        score = self._score(row.get("relevance_score"), "relevance_score")
        logit, title, truncated = a_number(row.get("logit")), a_string(row.get("title")), row.get("truncated")
        name_of, text_of, named = key_of(document), self._text(row), document is not None
        result = Result(name_of, score, index, logit, _first_score(row), title, text_of, truncated, named)
        return _Row(name, a_string(text), result, _number(row.get("rank"), "rank"), position)

    def _score(self, value: Json, what: str) -> float:
        """A relevance score: finite if `scored`, else NaN for None."""
        found = _number(value, what)
        if self._scored and (found is None or not math.isfinite(found)):
            raise BadRecord("bad_score", f"`{what}` is not valid (got {shown(repr(value))}, expected a number)")
        return math.nan if found is None else found

    def _text(self, source: dict[str, Json]) -> str | None:
        found, nested = first(source, self._fields.text).value, source.get("doc")
        if found is None:
            found = first(nested, self._fields.text).value if isinstance(nested, dict) else nested
        return text_in(source) if found is None else a_string(found)


def _in_order(rows: list[_Row]) -> QueryResults:
    """The rows of one query by rank if all have one, else by score, else by first-stage score, else in file order.

    Raises InputError if two rows have the same rank.
    """
    head, results = rows[0], [row.result for row in rows]
    ranks, stated = {row.rank for row in rows}, None
    if not all(result.named for result in results):
        results = [result if result.named else replace(result, id=f"#{n}") for n, result in enumerate(results, 1)]
    if None not in ranks:
        if len(ranks) < len(rows):
            what = f"query {shown(head.id)}, whose rows begin here, has one rank more than once"
            raise InputError(f"{head.position}: {what}")
        results = [results[place] for place in sorted(range(len(rows)), key=lambda place: rows[place].rank or 0.0)]
    else:
        for scores in ([result.score for result in results], [result.first_score for result in results]):
            known = [score for score in scores if score is not None and not math.isnan(score)]
            if len(known) == len(rows):
                stated = dict(zip((result.id for result in results), known, strict=True))
                results = by_score(results, known)
                break
    return QueryResults(head.id, head.query, tuple(results), head.position, scores=stated)


def _first_score(fields: dict[str, Json]) -> float | None:
    """The first stage's score of a document; in Parquet it may be in the JSON of the column `extra`."""
    score, extra = _number(first_stage_score(fields), "first-stage score"), fields.get("extra")
    if score is not None or not isinstance(extra, str):
        return score
    try:
        return _first_score(fields_of(orjson.loads(extra)))
    except orjson.JSONDecodeError:
        return None


def _number(value: Json, what: str) -> float | None:
    """The value as a float, which may be infinite. Raises BadRecord for NaN and for anything but a number."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise BadRecord("bad_number", f"the {what} is not a number (got {shown(str(value))}, expected a number)")
    return number


def fields_of(value: Json) -> dict[str, Json]:
    """The value if it is an object, else no fields."""
    return value if isinstance(value, dict) else {}


def a_string(value: Json) -> str | None:
    return value if isinstance(value, str) else None
