"""What a run wrote, and runs of other programs, read back as one ranking a query: for eval, report, view and mine.

Reads answers, rows of pairs, batch envelopes, TREC and MS MARCO lines, BEIR objects, and requests (the first stage).
Where a file states an order (answers, `rank`, MS MARCO), that order is kept. Where it states scores only (TREC, BEIR),
the order is trec_eval's: by score in float32, ties by document id, descending.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import orjson

from rerank_cli.display import kind, names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.runs.tables import a_mapping, open_table
from rerank_cli.formats.shapes.detection import detect
from rerank_cli.formats.shapes.fields import FIRST_SCORE, PAIR_QUERY_ID, Names, a_number, an_id, first, key_of
from rerank_cli.formats.shapes.pairs import pair_names
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.records import Candidate, Json, Position, Shape

_REQUESTS = (Shape.RERANK, Shape.SCORE, Shape.CANDIDATES, Shape.BATCH)
_EXPECTED = "expected `results`, `data`, or rows with `relevance_score`"


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate as it was ranked; None, or NaN as score, for what the file does not state.

    `id` is its own id as text, or its index. `index` counts from 0 in the input's list of candidates. `score` is what
    was written as relevance score, `logit` what was written beside it, `first_score` the first stage's score.
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
    """One query with its results, best first. `tokens` are those of all its pairs, `query` its text."""

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
    """The rankings of the wanted queries, and how many other queries there were."""

    rankings: Rankings
    others: int


def read_rankings(path: str, wanted: Collection[str], fields: Names | None = None) -> Found:
    """The rankings of the wanted queries; rows of a query may stand anywhere in the file.

    Raises InputError for a row that is no ranking, and for a query or a document that occurs twice.
    """
    whole: Rankings = {}
    rows: dict[str, list[_Row]] = {}
    with closing(RunFile(path, fields, scored=False, wanted=wanted)) as file:
        for item in file.items():
            if isinstance(item, _Row):
                rows.setdefault(item.id, []).append(item)
            elif item.id in whole:
                raise InputError(f"{item.position}: query {shown(item.id)} occurs twice (expected one ranking a query)")
            else:
                whole[item.id] = item.results
    found = whole | {query: _in_order(group).results for query, group in rows.items()}
    for query, results in found.items():
        if len({result.id for result in results}) < len(results):
            twice = Counter(result.id for result in results).most_common(1)[0][0]
            what = f"query {shown(query)} has document {shown(twice)} more than once"
            raise InputError(f"{file.name}: {what}. Fix: one row a document")
    return Found(found, len(file.others))


def best_of_run(path: str, depth: int) -> dict[str, list[str]]:
    """Query id to its `depth` best document ids, best first; the others are forgotten as they are read."""
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
    """Candidates of a request in the first stage's order: by their scores where all have one, else as they are."""
    found = [
        Result(key_of(index if c.id is None else c.id), index=index, first_score=c.score)
        for index, c in enumerate(candidates)
    ]
    scores = [result.first_score for result in found if result.first_score is not None]
    return by_score(found, scores) if len(scores) == len(found) else found


def by_score(results: list[Result], scores: list[float]) -> list[Result]:
    """As trec_eval sorts: scores in float32, the greatest first; of equal ones the greatest document id."""
    with np.errstate(over="ignore"):
        values = np.array(scores, dtype=np.float64).astype(np.float32).tolist()
    together = sorted(zip(values, results, strict=True), key=lambda pair: (pair[0], pair[1].id), reverse=True)
    return [result for _, result in together]


class RunFile:
    """A file of rankings, to be iterated once: one `QueryResults` a query, rows of one query standing together.

    `rejected` counts errors that stand in place of answers. Unless `scored`, results need no score, but queries and
    documents need ids. With `wanted`, other queries are passed over and kept in `others`.
    """

    def __init__(
        self,
        path: str,
        fields: Names | None = None,
        *,
        scored: bool = True,
        wanted: Collection[str] | None = None,
    ) -> None:
        self._table = open_table(path)
        self.name = self._table.name
        self.rejected = 0
        self.others: set[str] = set()
        self._fields = fields or Names()
        self._scored = scored
        self._wanted = wanted
        self._width = 0

    def close(self) -> None:
        self._table.close()

    def __iter__(self) -> Iterator[QueryResults]:
        group: list[_Row] = []
        for item in self.items():
            if group and not (isinstance(item, _Row) and item.id == group[0].id):
                yield _in_order(group)
                group = []
            if isinstance(item, _Row):
                group.append(item)
            else:
                yield item
        if group:
            yield _in_order(group)

    def items(self) -> Iterator[QueryResults | _Row]:
        """Whole rankings, and single rows, as they stand in the file."""
        for position, row in self._table.rows:
            if self._table.columns:
                found: Iterable[QueryResults | _Row | None] = [self._columns(row, position)]
            elif isinstance(row, dict):
                found = self._object(row, position)
            else:
                raise InputError(f"{position}: holds no ranking (got {kind(row)}, expected an object)")
            yield from (item for item in found if item is not None)

    def _skips(self, query: str) -> bool:
        if self._wanted is None or query in self._wanted:
            return False
        self.others.add(query)
        return True

    def _columns(self, row: list[str], position: Position) -> _Row | None:
        """A line of a TREC run (6 columns) or of an MS MARCO run (3)."""
        self._width = self._width or len(row)
        if len(row) != self._width or len(row) not in (3, 6):
            expected = f"expected {self._width}" if self._width in (3, 6) else "expected 6 (TREC) or 3 (qid pid rank)"
            raise InputError(f"{position}: is no line of a run (got {len(row)} columns, {expected})")
        if len(row) == 6:
            result = Result(row[2], self._score(row[4], "score", position))
            return None if self._skips(row[0]) else _Row(row[0], None, result, None, position)
        rank = _number(row[2], "rank", position)
        if rank is None or rank < 1 or not rank.is_integer():
            fix = "Fix: for scores, a first line `query_id docid score` with tabs between"
            raise InputError(f"{position}: the rank is no whole number from 1 (got {shown(row[2])}). {fix}")
        if self._scored:
            raise InputError(f"{position}: holds no scores (got a run with ranks; {_EXPECTED})")
        return None if self._skips(row[0]) else _Row(row[0], None, Result(row[1]), rank, position)

    def _object(self, row: dict[str, Json], position: Position) -> Iterator[QueryResults | _Row | None]:
        """An answer, a row of a pair, a request, or a whole run in one object."""
        results = row.get("search_results", row)
        if a_mapping(results):
            for query, scores in results.items():
                if not self._skips(query):
                    found = [Result(name, self._score(score, "score", position)) for name, score in scores.items()]
                    yield QueryResults(query, None, tuple(by_score(found, list(scores.values()))), position)
        elif "response" in row and "custom_id" in row:
            response = row["response"]
            body = response.get("body") if isinstance(response, dict) else None
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
        """`results` stand best first, `data` in input order: they are sorted by score, ties in input order."""
        name = self._query(query, position)
        if self._skips(name):
            return None
        items = answer["results"] if isinstance(answer.get("results"), list) else answer.get("data") or []
        results = [self._result(item, position) for item in items]
        if not isinstance(answer.get("results"), list):
            values = [_number(item.get("fused_score", item.get("score")), "score", position) or 0.0 for item in items]
            results = [results[place] for place in sorted(range(len(values)), key=lambda place: -values[place])]
        usage, text = answer.get("usage"), answer.get("query")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        return QueryResults(
            name,
            text if isinstance(text, str) else None,
            tuple(results),
            position,
            tokens if isinstance(tokens, int) else None,
            answer.get("model"),
        )

    def _result(self, item: Json, position: Position) -> Result:
        if not isinstance(item, dict) or not isinstance(item.get("index"), int):
            got = names(item) if isinstance(item, dict) else kind(item)
            raise InputError(f"{position}: a result without `index` (got {got})")
        document = item.get("document")
        source: dict[str, Json] = document if isinstance(document, dict) else {}
        nested = source.get("doc")
        inner: dict[str, Json] = nested if isinstance(nested, dict) else {}
        own_ids = [first(where, self._fields.doc_id).value for where in (source, inner)]
        name = next(found for found in (*own_ids, item.get("id"), item["index"]) if found is not None)
        first_score = _first_score(source, position)
        if first_score is None:
            first_score = _number(item.get("retrieval_score"), "retrieval_score", position)
        title = source.get("title") or inner.get("title")
        score_name = "score" if "object" in item or "relevance_score" not in item else "relevance_score"
        return Result(
            key_of(name),
            self._score(item.get(score_name), "relevance_score", position),
            item["index"],
            a_number(item.get("logit")),
            first_score,
            title if isinstance(title, str) else None,
            document if isinstance(document, str) else self._text(source),
            item.get("truncated"),
        )

    def _other(self, row: dict[str, Json], position: Position) -> QueryResults | _Row | None:
        """A row of a pair, or a request with the first stage's ranking."""
        shape = detect(row, self._fields)
        if self._scored and (shape in _REQUESTS or "relevance_score" not in row):
            raise InputError(f"{position}: holds no ranking (got {names(row)}; {_EXPECTED})")
        if shape not in _REQUESTS:
            return self._pair(row, position)
        try:
            request = request_from(row, shape, self._fields, position)
        except BadRecord as error:
            raise InputError(f"{position}: {error}") from None
        name = self._query(request.id, position)
        ranked = tuple(first_stage(request.candidates))
        return None if self._skips(name) else QueryResults(name, request.query, ranked, position)

    def _pair(self, row: dict[str, Json], position: Position) -> _Row | None:
        known = pair_names(row, self._fields).names
        try:
            query = an_id(first(row, known.id).value, "query id")
            document = an_id(first(row, known.doc_id).value, "document id")
        except BadRecord as error:
            raise InputError(f"{position}: {error}") from None
        text, index, title = first(row, known.query).value, row.get("index"), row.get("title")
        if self._scored:
            query = text if query is None and first(row, PAIR_QUERY_ID).name is None else query
            document = index if document is None else document
        elif query is None or document is None:
            missing = "query id" if query is None else "document id"
            raise InputError(f"{position}: the row has no {missing} (got {names(row)})")
        if self._skips(key_of(query)):
            return None
        result = Result(
            key_of(document),
            self._score(row.get("relevance_score"), "relevance_score", position),
            index if isinstance(index, int) else None,
            a_number(row.get("logit")),
            _first_score(row, position),
            title if isinstance(title, str) else None,
            self._text(row),
            row.get("truncated"),
        )
        rank = _number(row.get("rank"), "rank", position)
        return _Row(key_of(query), text if isinstance(text, str) else None, result, rank, position)

    def _query(self, name: Json, position: Position) -> str:
        if name is None and not self._scored:
            raise InputError(f"{position}: the record has no id, by which it could be judged")
        return key_of(name)

    def _score(self, value: Json, what: str, position: Position) -> float:
        """A relevance score, which is finite where scores are needed."""
        found = _number(value, what, position)
        if self._scored and (found is None or not math.isfinite(found)):
            raise InputError(f"{position}: `{what}` cannot be used (got {shown(repr(value))}, expected a number)")
        return math.nan if found is None else found

    def _text(self, source: dict[str, Json]) -> str | None:
        found, nested = first(source, self._fields.text).value, source.get("doc")
        if found is None and nested is not None:
            found = first(nested, self._fields.text).value if isinstance(nested, dict) else nested
        return found if isinstance(found, str) else None


def _in_order(rows: list[_Row]) -> QueryResults:
    """Rows of one query by rank if all have one, else by score, else by the first stage's score, else as they are."""
    head, results = rows[0], [row.result for row in rows]
    ranks = [row.rank for row in rows if row.rank is not None]
    if len(ranks) == len(rows):
        if len(set(ranks)) < len(ranks):
            raise InputError(f"{head.position}: query {shown(head.id)} has one rank more than once from here on")
        results = [result for _, result in sorted(zip(ranks, results, strict=True), key=lambda pair: pair[0])]
    else:
        for scores in ([result.score for result in results], [result.first_score for result in results]):
            known = [score for score in scores if score is not None and not math.isnan(score)]
            if len(known) == len(rows):
                results = by_score(results, known)
                break
    return QueryResults(head.id, head.query, tuple(results), head.position)


def _first_score(fields: dict[str, Json], position: Position) -> float | None:
    """The first stage's score of a document; in Parquet it may stand in the JSON of the column `extra`."""
    for name in FIRST_SCORE:
        if a_number(fields.get(name)) is not None:
            return _number(fields[name], name, position)
    extra = fields.get("extra")
    if isinstance(extra, str):
        try:
            inside = orjson.loads(extra)
        except orjson.JSONDecodeError:
            return None
        return _first_score(inside, position) if isinstance(inside, dict) else None
    return None


def _number(value: Json, what: str, position: Position) -> float | None:
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if number != number:
        raise InputError(f"{position}: the {what} is not a number (got {shown(str(value))}, expected a number)")
    return number
