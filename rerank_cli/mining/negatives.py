"""Hard negatives of one query: which of its reranked passages are worth training against, and which may be relevant.

A negative is a passage that ranks well and is not judged relevant. What the reranker scores as high as a positive is
likely to be relevant and only not judged: margins and limits keep it out. What is judged not relevant needs no such
care.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rerank_cli.choices import MarginFrom, Sampling
from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.runs.rank_comparison import Placed, RankComparison
from rerank_cli.formats.runs.results import Result


@dataclass(frozen=True, slots=True)
class Rules:
    """What qualifies as a negative. Ranks count from 1, `last_rank` None is the end; scores are those of the file.

    A negative scores at most `margin` below the positive, at most `max_relative` times its score, and at most
    `max_score`. Documents judged `min_relevance` or higher are positives, others above 0 are neither.
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
    """A query with documents to train on. A text that is None is still to be found; a score may be no number.

    `full` is whether there were as many negatives as were asked for.
    """

    id: str
    query: str | None
    positives: tuple[Result, ...]
    negatives: tuple[Result, ...]
    full: bool = True


class Reason(StrEnum):
    """Why a query gives nothing to train on, as it is said."""

    NO_POSITIVE = "without a judged positive"
    NO_SCORED_POSITIVE = "without a positive among their passages to measure margins from"
    NO_NEGATIVE = "without a passage that qualifies as a negative"
    NO_TEXT = "whose positives have no text at hand (--corpus FILE)"
    TOO_FEW = "with too few negatives for --format n-tuples"


def mine(query: RankComparison, judged: Mapping[str, int], rules: Rules) -> Mined | Reason:
    """Positives and hard negatives of a query, or why there are none."""
    wanted = [name for name, relevance in judged.items() if relevance >= rules.min_relevance]
    if not wanted:
        return Reason.NO_POSITIVE
    known = {place.result.id: place.result for place in query.results}
    beside = {result.id: result for result in query.before or ()}
    positives = tuple(known.get(name) or _unscored(name, beside.get(name)) for name in wanted)
    scored = [known[name].score for name in wanted if name in known]
    if not scored and (rules.margin is not None or rules.max_relative is not None):
        return Reason.NO_SCORED_POSITIVE
    most = _most(query.id, scored, rules)
    taken = {_text(result) for result in positives if result.text is not None}
    qualified = []
    for place in query.results[rules.first_rank - 1 : rules.last_rank]:
        if _qualifies(place, judged, most, rules) and _text(place.result) not in taken:
            qualified.append(place.result)
            if place.result.text is not None:
                taken.add(_text(place.result))
    if not qualified:
        return Reason.NO_NEGATIVE
    chosen = _sample(qualified, query.id, rules)
    return Mined(query.id, query.query, positives, tuple(chosen), len(chosen) == rules.negatives)


def _unscored(name: str, beside: Result | None) -> Result:
    """A positive that was not reranked, or is not in the output: its score is no number."""
    return Result(name, math.nan, title=beside.title if beside else None, text=beside.text if beside else None)


def _most(name: str, positives: Sequence[float], rules: Rules) -> float:
    """The highest score that a passage which nobody judged may have."""
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


def _qualifies(place: Placed, judged: Mapping[str, int], most: float, rules: Rules) -> bool:
    relevance, score = judged.get(place.result.id), place.result.score
    if (relevance or 0) > 0 or (rules.min_score is not None and score < rules.min_score):
        return False
    return relevance is not None or score <= most


def _text(result: Result) -> str:
    """What tells a document from others: its text, its id where that is not known."""
    return f"id {result.id}" if result.text is None else f"text {result.title or ''} {result.text}"


def _sample(results: Sequence[Result], name: str, rules: Rules) -> list[Result]:
    """In rank order. What is drawn depends on the seed and the query alone, not on other queries."""
    if rules.sampling is Sampling.TOP or len(results) <= rules.negatives:
        return list(results[: rules.negatives])
    drawn = random.Random(f"{rules.seed} {name}").sample(range(len(results)), rules.negatives)
    return [results[number] for number in sorted(drawn)]
