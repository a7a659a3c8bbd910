"""Hard negatives of one query, chosen from its reranked passages.

A negative is a passage that ranks high and is not judged relevant. An unjudged passage whose score is as high as a
positive's is probably relevant: margins and score limits exclude it. They do not apply to passages judged not relevant.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rerank_cli.choices import MarginFrom, Sampling
from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.runs.rank_comparison import RankComparison
from rerank_cli.formats.runs.results import Result


@dataclass(frozen=True, slots=True)
class Rules:
    """What qualifies as a negative. Ranks start at 1, `last_rank` None is the last; scores are those in the file.

    The score of a negative is at least `min_score`. If it is not judged, its score is also at least `margin` below the
    positive's, at most `max_relative` times the positive's, and at most `max_score`. Documents judged `min_relevance`
    or higher are positives, others judged above 0 are neither.
    """

    negatives: int = 7
    first_rank: int = 1
    last_rank: int | None = None
    margin: float | None = None
    max_relative: float | None = None
    margin_from: MarginFrom = MarginFrom.LOWEST
    min_score: float | None = None
    max_score: float | None = None
    min_relevance: int = 1
    sampling: Sampling = Sampling.TOP
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Mined:
    """A query with documents to train on; texts may be None. `full`: it has as many negatives as requested."""

    id: str
    query: str | None
    positives: tuple[Result, ...]
    negatives: tuple[Result, ...]
    full: bool = True


class Reason(StrEnum):
    """Why a query gives no training example; the text follows a number of queries in the summary line."""

    NO_POSITIVE = "without a judged positive"
    NO_SCORED_POSITIVE = "without a ranked positive to measure margins from"
    NO_NEGATIVE = "without a passage that qualifies as a negative"
    NO_TEXT = "whose positives have no text (--corpus FILE)"
    TOO_FEW = "with too few negatives for --format n-tuples"


def mine(query: RankComparison, judged: Mapping[str, int], rules: Rules) -> Mined | Reason:
    """Positives (score NaN if not reranked) and hard negatives of a query, or the reason why there are none."""
    wanted = [name for name, relevance in judged.items() if relevance >= rules.min_relevance]
    if not wanted:
        return Reason.NO_POSITIVE
    known = {place.result.id: place.result for place in query.results}
    before = {result.id: result for result in query.before or ()}
    positives = tuple(known.get(name) or replace(before.get(name, Result(name)), score=math.nan) for name in wanted)
    scored = [known[name].score for name in wanted if name in known]
    if not scored and (rules.margin is not None or rules.max_relative is not None):
        return Reason.NO_SCORED_POSITIVE
    most = _most(query.id, scored, rules)
    least = -math.inf if rules.min_score is None else rules.min_score
    taken = {_text(result) for result in positives if result.text is not None}
    qualified = []
    for place in query.results[rules.first_rank - 1 : rules.last_rank]:
        result, relevance = place.result, judged.get(place.result.id)
        qualifies = result.score <= most if relevance is None else relevance <= 0
        if qualifies and not result.score < least and _text(result) not in taken:
            qualified.append(result)
            if result.text is not None:
                taken.add(_text(result))
    if not qualified:
        return Reason.NO_NEGATIVE
    chosen = _sample(qualified, query.id, rules)
    return Mined(query.id, query.query, positives, tuple(chosen), len(chosen) == rules.negatives)


def _most(name: str, positives: Sequence[float], rules: Rules) -> float:
    """The highest score that an unjudged negative may have."""
    limits = [] if rules.max_score is None else [rules.max_score]
    if positives:
        reference = min(positives) if rules.margin_from is MarginFrom.LOWEST else max(positives)
        if rules.margin is not None:
            limits.append(reference - rules.margin)
        if rules.max_relative is not None:
            if not 0 <= reference <= 1:
                got = f"got {reference:g} for a positive of query `{shown(name)}`"
                raise InputError(f"--max-relative needs scores from 0 to 1 ({got}). Fix: --margin")
            limits.append(reference * rules.max_relative)
    return min(limits, default=math.inf)


def _text(result: Result) -> str:
    """Identifies a document by its text, or by its id if the text is unknown."""
    return f"id {result.id}" if result.text is None else f"text {result.title or ''} {result.text}"


def _sample(results: Sequence[Result], name: str, rules: Rules) -> list[Result]:
    """In rank order. A random sample depends only on the seed and the query, not on other queries."""
    if rules.sampling is Sampling.TOP or len(results) <= rules.negatives:
        return list(results[: rules.negatives])
    drawn = random.Random(f"{rules.seed} {name}").sample(range(len(results)), rules.negatives)
    return [results[number] for number in sorted(drawn)]
