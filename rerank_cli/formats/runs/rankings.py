"""Outputs and runs read back: for each query its documents, best first.

Where a file says an order (answers, `rank`, MS MARCO), that is the order, ties and all. Where it says scores alone
(TREC, BEIR), it is the one that trec_eval sees: by score in float32, ties by document id downwards. Our own inputs are
read too, as the first stage's ranking: by its scores where all documents have one, else as they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import orjson

from rerank_cli.display import kind, names, shown
from rerank_cli.errors import BadRecord, InputError
from rerank_cli.formats.runs.tables import a_mapping, open_table
from rerank_cli.formats.shapes.detection import detect
from rerank_cli.formats.shapes.fields import FIRST_SCORE, Names, first, key_of
from rerank_cli.formats.shapes.pairs import pair_names
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.records import Candidate, Json, Position, Request, Shape

_REQUESTS = (Shape.RERANK, Shape.SCORE, Shape.CANDIDATES, Shape.BATCH)


class Ranked(NamedTuple):
    """A document: its id, its score, the first stage's score, its place in the input; None for what is not told."""

    name: str
    score: float | None = None
    first: float | None = None
    place: int | None = None


Rankings: TypeAlias = dict[str, list[Ranked]]


class Found(NamedTuple):
    """The rankings of the queries that were wanted, and how many others there were."""

    rankings: Rankings
    others: int


def read_rankings(path: str, wanted: Collection[str], fields: Names | None = None) -> Found:
    """The rankings in a file. InputError for a row that is none, and for a query or document that comes twice."""
    table = open_table(path)
    reader = _Reader(table.name, wanted, fields or Names())
    with closing(table.rows) as rows:
        for position, row in rows:
            if table.columns:
                reader.take_columns(row, position)
            else:
                reader.take_object(row, position)
    return Found(reader.rankings(), len(reader.others))


def as_first_ranked(candidates: Iterable[Candidate]) -> list[Ranked]:
    """Candidates of a request as the first stage ranked them."""
    found = [
        Ranked(key_of(index if c.id is None else c.id), None, c.score, index) for index, c in enumerate(candidates)
    ]
    return found if any(ranked.first is None for ranked in found) else by_score(found, [r.first or 0.0 for r in found])


def by_score(documents: list[Ranked], scores: list[float]) -> list[Ranked]:
    """As trec_eval sorts them: scores are float32, the greatest first; of equal ones the greatest document id."""
    with np.errstate(over="ignore"):
        values = np.array(scores, dtype=np.float64).astype(np.float32).tolist()
    together = sorted(zip(values, documents, strict=True), key=lambda pair: (pair[0], pair[1].name), reverse=True)
    return [document for _, document in together]


class _Row(NamedTuple):
    document: Ranked
    rank: float | None
    position: Position


class _Reader:
    """Gathers rows by query; answers and requests bring a query at once."""

    def __init__(self, name: str, wanted: Collection[str], fields: Names) -> None:
        self.others: set[str] = set()
        self._name = name
        self._wanted = wanted
        self._fields = fields
        self._whole: Rankings = {}
        self._rows: dict[str, list[_Row]] = {}
        self._width = 0

    def rankings(self) -> Rankings:
        """All that was taken; InputError if a document comes twice."""
        found = self._whole | {query: _in_order(query, rows) for query, rows in self._rows.items()}
        for query, documents in found.items():
            if len({document.name for document in documents}) < len(documents):
                twice = Counter(document.name for document in documents).most_common(1)[0][0]
                what = f"query {shown(query)} has document {shown(twice)} more than once"
                raise InputError(f"{self._name}: {what}. Fix: one row a document")
        return found

    def take_columns(self, row: list[str], position: Position) -> None:
        """A line of a TREC run (6 columns) or of an MS MARCO one (3)."""
        self._width = self._width or len(row)
        if len(row) != self._width or len(row) not in (3, 6):
            expected = f"expected {self._width}" if self._width in (3, 6) else "expected 6 (TREC) or 3 (qid pid rank)"
            raise InputError(f"{position}: is no line of a run (got {len(row)} columns, {expected})")
        if len(row) == 6:
            score = _number(row[4], "score", position)
            self._add(row[0], _Row(Ranked(row[2], score), None, position))
            return
        rank = _number(row[2], "rank", position)
        if rank is None or rank < 1 or not rank.is_integer():
            fix = "Fix: for scores, a first line `query_id docid score` with tabs between"
            raise InputError(f"{position}: the rank is no whole number from 1 (got {shown(row[2])}). {fix}")
        self._add(row[0], _Row(Ranked(row[1]), rank, position))

    def take_object(self, row: Json, position: Position) -> None:
        """An answer, a row of a pair, a request, or a whole run in one object."""
        if not isinstance(row, dict):
            raise InputError(f"{position}: is no ranking (got {kind(row)}, expected an object)")
        results = row.get("search_results", row)
        if a_mapping(results):
            for query, scores in results.items():
                self._put(query, position, partial(_of_scores, scores, position))
        elif "response" in row and "custom_id" in row:
            response = row["response"]
            body = response.get("body") if isinstance(response, dict) else None
            if isinstance(body, dict):
                self._answer(body, row["custom_id"], position)
        elif any(isinstance(row.get(key), list) for key in ("results", "data")):
            self._answer(row, row.get("id"), position)
        elif row and row.get("error") is None:
            self._other(row, position)

    def _other(self, row: dict[str, Json], position: Position) -> None:
        shape = detect(row, self._fields)
        if shape not in _REQUESTS:
            self._pair(row, position)
            return
        try:
            request = request_from(row, shape, self._fields, position)
        except BadRecord as error:
            raise InputError(f"{position}: {error}") from None
        self._put(_id(request.id, position), position, lambda: _of_request(request))

    def _answer(self, answer: dict[str, Json], query: Json, position: Position) -> None:
        self._put(_id(query, position), position, lambda: _of_answer(answer, self._fields, position))

    def _put(self, query: str, position: Position, make: Callable[[], list[Ranked]]) -> None:
        if query not in self._wanted:
            self.others.add(query)
        elif query in self._whole:
            raise InputError(f"{position}: query {shown(query)} comes again (expected one ranking a query)")
        else:
            self._whole[query] = make()

    def _pair(self, row: dict[str, Json], position: Position) -> None:
        known = pair_names(row, self._fields).names
        query, document = (first(row, where).value for where in (known.id, known.doc_id))
        if query is None or document is None:
            missing = "query id" if query is None else "document id"
            raise InputError(f"{position}: the row has no {missing} (got {names(row)})")
        score = _number(row.get("relevance_score"), "relevance_score", position)
        index = row["index"] if isinstance(row.get("index"), int) else None
        ranked = Ranked(key_of(document), score, _first_score(row, position), index)
        self._add(key_of(query), _Row(ranked, _number(row.get("rank"), "rank", position), position))

    def _add(self, query: str, row: _Row) -> None:
        if query in self._wanted:
            self._rows.setdefault(query, []).append(row)
        else:
            self.others.add(query)


def _in_order(query: str, rows: list[_Row]) -> list[Ranked]:
    """By rank if all rows have one, else by score, else by the first stage's score, else as they come."""
    documents = [row.document for row in rows]
    ranks = [row.rank for row in rows if row.rank is not None]
    if len(ranks) == len(rows):
        if len(set(ranks)) < len(ranks):
            raise InputError(f"{rows[0].position}: query {shown(query)} has one rank more than once from here on")
        return [document for _, document in sorted(zip(ranks, documents, strict=True), key=lambda pair: pair[0])]
    for scores in ([d.score for d in documents], [d.first for d in documents]):
        known = [score for score in scores if score is not None]
        if len(known) == len(rows):
            return by_score(documents, known)
    return documents


def _of_scores(scores: dict[str, float], position: Position) -> list[Ranked]:
    documents = [Ranked(name, _number(score, "score", position)) for name, score in scores.items()]
    return by_score(documents, list(scores.values()))


def _of_request(request: Request) -> list[Ranked]:
    return as_first_ranked(request.candidates)


def _of_answer(answer: dict[str, Json], fields: Names, position: Position) -> list[Ranked]:
    """`results` stand best first; `data` in input order, of which equal scores are in the order of the input."""
    results, data = answer.get("results"), answer.get("data")
    items = results if isinstance(results, list) else data or []
    found = [_result(item, fields, position) for item in items]
    if isinstance(results, list):
        return found
    values = [item.get("fused_score", item.get("score")) for item in items]
    order = sorted(range(len(found)), key=lambda place: -(_number(values[place], "score", position) or 0.0))
    return [found[place] for place in order]


def _result(item: Json, fields: Names, position: Position) -> Ranked:
    if not isinstance(item, dict) or not isinstance(item.get("index"), int):
        got = names(item) if isinstance(item, dict) else kind(item)
        raise InputError(f"{position}: a result without `index` (got {got})")
    document = item.get("document")
    own = document if isinstance(document, dict) else {}
    inner = own.get("doc")
    name = first(own, fields.doc_id).value
    if name is None and isinstance(inner, dict):
        name = first(inner, fields.doc_id).value
    name = item.get("id") if name is None else name
    score = item.get("relevance_score", item.get("score"))
    first_score = _first_score(own, position)
    if first_score is None:
        first_score = _number(item.get("retrieval_score"), "retrieval_score", position)
    index = item["index"]
    return Ranked(key_of(index if name is None else name), _number(score, "score", position), first_score, index)


def _first_score(fields: dict[str, Json], position: Position) -> float | None:
    """The first stage's score beside a document; in Parquet it may stand in the JSON of the column `extra`."""
    for name in FIRST_SCORE:
        if isinstance(fields.get(name), int | float):
            return _number(fields[name], name, position)
    extra = fields.get("extra")
    if isinstance(extra, str):
        try:
            inside = orjson.loads(extra)
        except orjson.JSONDecodeError:
            return None
        return _first_score(inside, position) if isinstance(inside, dict) else None
    return None


def _id(value: Json, position: Position) -> str:
    if value is None:
        raise InputError(f"{position}: the record has no id, by which it could be judged")
    return key_of(value)


def _number(value: Json, what: str, position: Position) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{position}: the {what} is no number (got {shown(str(value))})") from None
    if number != number:
        raise InputError(f"{position}: the {what} is not a number (NaN)")
    return number
