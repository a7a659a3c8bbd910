"""The results of one query and their order, as eval, report, view and mine read them.

If a file states an order (answers, `rank`, MS MARCO), it is kept. If it states scores only (TREC, BEIR), results are
listed in the order of trec_eval (by score in float32, ties by document id, descending), and measures are computed from
the scores as they are in the file, so that ir_measures breaks ties as it does when it reads the file itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.records import Candidate, Position

Scores: TypeAlias = dict[str, float]
"""Scores by document id, as ir_measures takes them. Some of its providers break ties by the order of this dict."""


@dataclass(frozen=True, slots=True)
class Result:
    """One ranked candidate. What the file does not state is None, or NaN as `score`.

    `id` is its own id as text, or its index; if the file has neither, `named` is false and the id is `#` and the place
    among the query's rows, from 1. `index` counts from 0 in the input's list of candidates. `score` is the relevance
    score, `logit` is set only if it is written too, `first_score` is the first stage's score.
    """

    id: str
    score: float = math.nan
    index: int | None = None
    logit: float | None = None
    first_score: float | None = None
    title: str | None = None
    text: str | None = None
    truncated: bool | None = None
    named: bool = True


class QueryResults(NamedTuple):
    """One query with its results, best first. `query` is its text, `tokens` the number of tokens of all its pairs.

    `scores` are by document id, in file order; None if the file states an order.
    """

    id: str
    query: str | None
    results: tuple[Result, ...]
    position: Position
    tokens: int | None = None
    model: str | None = None
    scores: Scores | None = None

    @property
    def measured(self) -> Scores:
        """The scores to compute measures from."""
        return stand_ins([result.id for result in self.results]) if self.scores is None else self.scores


def check_documents(item: QueryResults, name: str) -> None:
    """Raise InputError if a document occurs twice among the results."""
    if len({result.id for result in item.results}) < len(item.results):
        twice = Counter(result.id for result in item.results).most_common(1)[0][0]
        what = f"query {shown(item.id)} has document {shown(twice)} more than once"
        raise InputError(f"{name}: {what}. Fix: one row per document")


def stand_ins(ids: Sequence[str]) -> Scores:
    """Scores n, n − 1, …, 1 for documents in a stated order: without ties, every provider sees this order."""
    return {name: float(len(ids) - place) for place, name in enumerate(ids)}


def first_stage(candidates: Iterable[Candidate]) -> tuple[list[Result], Scores | None]:
    """Candidates of a request in first-stage order, and their scores in input order if all have one.

    The order is that of the scores, else that of the input.
    """
    found = [
        Result(key_of(n if c.id is None else c.id), index=n, first_score=c.score) for n, c in enumerate(candidates)
    ]
    known = ((result.id, result.first_score) for result in found)
    scores = {name: score for name, score in known if score is not None and not math.isnan(score)}
    return (by_score(found, list(scores.values())), scores) if len(scores) == len(found) else (found, None)


def by_score(results: Sequence[Result], scores: Sequence[float]) -> list[Result]:
    """The results in the order of trec_eval."""
    return [results[place] for place in _trec_order([result.id for result in results], scores)]


def trec_order(scores: Scores) -> list[str]:
    """Document ids in the order of trec_eval."""
    ids = list(scores)
    return [ids[place] for place in _trec_order(ids, list(scores.values()))]


def _trec_order(ids: Sequence[str], scores: Sequence[float]) -> list[int]:
    """Indices, highest float32 score first; of equal scores, the greatest document id."""
    with np.errstate(over="ignore"):
        values = np.array(scores, dtype=np.float64).astype(np.float32).tolist()
    return sorted(range(len(ids)), key=lambda place: (values[place], ids[place]), reverse=True)


def first_of(scores: Scores, depth: int) -> Scores:
    """The documents that pytrec_eval or msmarco, which break ties in opposite ways, have among the first `depth`."""
    if len(scores) <= depth:
        return scores
    kept = {*trec_order(scores)[:depth], *sorted(scores, key=lambda name: (-scores[name], name))[:depth]}
    return {name: score for name, score in scores.items() if name in kept}
