"""Reads outputs of `rerank` and runs of other programs as one ranking per query, for eval, report, view and mine.

Reads answers, rows of pairs, batch envelopes, TREC and MS MARCO lines, BEIR objects, and requests (the first stage).
If a file states an order (answers, `rank`, MS MARCO), it is kept. If it states scores only (TREC, BEIR), the order is
that of trec_eval: by score in float32, ties by document id, descending.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np
import orjson

from rerank_cli.display import kind, names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.runs.tables import a_mapping, open_table
from rerank_cli.formats.shapes.detection import detect
from rerank_cli.formats.shapes.fields import PAIR_QUERY_ID, Names, a_number, an_id, first, first_stage_score, key_of
from rerank_cli.formats.shapes.pairs import pair_names
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.records import Candidate, Json, Position, Shape

_REQUESTS = (Shape.RERANK, Shape.SCORE, Shape.CANDIDATES, Shape.BATCH)
_EXPECTED = "expected `results`, `data`, or rows with `relevance_score`"


@dataclass(frozen=True, slots=True)
class Result:
    """One ranked candidate. What the file does not state is None, or NaN as `score`.

    `id` is its own id as text, or its index. `index` counts from 0 in the input's list of candidates. `score` is the
    relevance score, `logit` is set only if it is written too, `first_score` is the first stage's score.
    """

    id: str
    score: float = math.nan
    index: int | None = None
    logit: float | None = None
    first_score: float | None = None
    title: str | None = None
    text: str | None = None
    truncated: bool | None = None


class QueryResults(NamedTuple):
    """One query with its results, best first. `query` is its text, `tokens` the number of tokens of all its pairs."""

    id: str
    query: str | None
    results: tuple[Result, ...]
    position: Position
    tokens: int | None = None
    model: str | None = None


class _Row(NamedTuple):
    """A row of one pair."""

    id: str
    query: str | None
    result: Result
    rank: float | None
    position: Position


Rankings: TypeAlias = dict[str, tuple[Result, ...]]


class Found(NamedTuple):
    """The rankings of the wanted queries, and the number of other queries."""

    rankings: Rankings
    others: int


def read_rankings(path: str, wanted: Collection[str], fields: Names | None = None) -> Found:
    """The rankings of the wanted queries. The rows of a query may be anywhere in the file.

    Raises InputError for a row that is not a ranking, and for a query or a document that occurs twice.
    """
    whole: Rankings = {}
    rows: dict[str, list[_Row]] = {}
    with closing(RunFile(path, fields, scored=False, wanted=wanted)) as file:
        for item in file.items():
            if isinstance(item, _Row):
                rows.setdefault(item.id, []).append(item)
            elif item.id in whole:
                raise InputError(f"{item.position}: query {shown(item.id)} occurs twice (expected one ranking)")
            else:
                whole[item.id] = item.results
    found = whole | {query: _in_order(group).results for query, group in rows.items()}
    for query, results in found.items():
        if len({result.id for result in results}) < len(results):
            twice = Counter(result.id for result in results).most_common(1)[0][0]
            what = f"query {shown(query)} has document {shown(twice)} more than once"
            raise InputError(f"{file.name}: {what}. Fix: one row per document")
    return Found(found, len(file.others))


def best_of_run(path: str, depth: int) -> dict[str, list[str]]:
    """Query id to its `depth` best document ids, best first. Memory is bounded by `depth` entries per query."""
    found: dict[str, list[str]] = {}
    best: dict[str, list[tuple[float, str]]] = {}
    with closing(RunFile(path, scored=False)) as file:
        for item in file.items():
            if not isinstance(item, _Row):
                found[item.id] = [result.id for result in item.results[:depth]]
                continue
            score = item.result.score if item.rank is None else -item.rank
            heap = best.setdefault(item.id, [])
            entry = (-math.inf if math.isnan(score) else score, item.result.id)
            (heapq.heappush if len(heap) < depth else heapq.heappushpop)(heap, entry)
    return found | {query: [name for _, name in sorted(heap, reverse=True)] for query, heap in best.items()}


def first_stage(candidates: Iterable[Candidate]) -> list[Result]:
    """Candidates of a request in first-stage order: by score if all have one, else in input order."""
    found = [
        Result(key_of(n if c.id is None else c.id), index=n, first_score=c.score) for n, c in enumerate(candidates)
    ]
    scores = [result.first_score for result in found if result.first_score is not None]
    return by_score(found, scores) if len(scores) == len(found) else found


def by_score(results: list[Result], scores: list[float]) -> list[Result]:
    """The order of trec_eval: highest float32 score first; of equal scores, the greatest document id."""
    with np.errstate(over="ignore"):
        values = np.array(scores, dtype=np.float64).astype(np.float32).tolist()
    together = sorted(zip(values, results, strict=True), key=lambda pair: (pair[0], pair[1].id), reverse=True)
    return [result for _, result in together]


class RunFile:
    """A file of rankings, to be iterated once: one `QueryResults` per query. Adjacent rows of one query are joined.

    `rejected` counts errors in place of answers. Unless `scored`, results need no score, but queries and documents
    need ids. With `wanted`, other queries are skipped and their ids are collected in `others`.
    """

    def __init__(
        self, path: str, fields: Names | None = None, *, scored: bool = True, wanted: Collection[str] | None = None
    ) -> None:
        self._table = open_table(path)
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
                    found = [Result(name, self._score(score, "score")) for name, score in scores.items()]
                    yield QueryResults(query, None, tuple(by_score(found, list(scores.values()))), position)
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
        own_ids = [first(where, self._fields.doc_id).value for where in (source, inner)]
        name = next(found for found in (*own_ids, item.get("id"), item["index"]) if found is not None)
        first_score = _first_score(source)
        if first_score is None:
            first_score = _number(item.get("retrieval_score"), "retrieval_score")
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
        name = self._wanted_id(request.id)
        ranked = tuple(first_stage(request.candidates))
        return None if name is None else QueryResults(name, request.query, ranked, position)

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
        result = Result(key_of(document), score, index, logit, _first_score(row), title, self._text(row), truncated)
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
        return a_string(found)


def _in_order(rows: list[_Row]) -> QueryResults:
    """The rows of one query by rank if all have one, else by score, else by first-stage score, else in file order.

    Raises InputError if two rows have the same rank.
    """
    head, results = rows[0], [row.result for row in rows]
    ranks = {row.rank for row in rows}
    if None not in ranks:
        if len(ranks) < len(rows):
            what = f"query {shown(head.id)}, whose rows begin here, has one rank more than once"
            raise InputError(f"{head.position}: {what}")
        results = [row.result for row in sorted(rows, key=lambda row: row.rank or 0.0)]
    else:
        for scores in ([result.score for result in results], [result.first_score for result in results]):
            known = [score for score in scores if score is not None and not math.isnan(score)]
            if len(known) == len(rows):
                results = by_score(results, known)
                break
    return QueryResults(head.id, head.query, tuple(results), head.position)


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
