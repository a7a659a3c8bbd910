"""A query reduced to what a report shows: figures, and a few passages of both orders with shortened texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerank_cli.formats.runs.rank_comparison import RankComparison
from rerank_cli.formats.runs.results import Result, Scores, first_of, trec_order

TOP = 10
_SHOWN = 3
_TEXT = 340
_TITLE = 160
QUERY = 300


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage in one of the two orders. `other_rank` is its rank in the other order; `relevance` None: not judged."""

    id: str
    rank: int
    other_rank: int | None
    title: str | None
    text: str | None
    score: float | None
    relevance: int | None

    @property
    def is_relevant(self) -> bool:
        return self.relevance is not None and self.relevance > 0


@dataclass(frozen=True, slots=True)
class Case:
    """A query. `after` and `before` are the scores that decide the top ten in both orders; `before` None if unknown."""

    id: str
    query: str | None
    candidates: int
    tokens: int | None
    characters: int
    longest: int
    truncated: int | None
    moved_from: int | None
    after: Scores
    before: Scores | None
    left: tuple[Passage, ...]
    right: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class MeasuredCase:
    """A case with its measures by name in both orders; `before` is empty if that order is unknown."""

    case: Case
    before: Mapping[str, float]
    after: Mapping[str, float]

    def change(self, measure: str) -> float | None:
        return self.after[measure] - self.before[measure] if self.before else None


def case_of(query: RankComparison, judged: Mapping[str, int], baseline: Scores | None) -> Case:
    """The case of a query; the scores of a `baseline` replace the first-stage order."""
    results = query.results
    flags = [place.result.truncated for place in results]
    lengths = [len(place.result.text or "") + len(place.result.title or "") for place in results]
    ranked = {place.result.id: place for place in results}
    first, before = query.before, query.scores_before if baseline is None else baseline
    names = [] if baseline is None else trec_order(baseline)[:TOP]
    baseline_ranks = {name: rank for rank, name in enumerate(names, 1)}
    if baseline is not None:
        known = {result.id: result for result in query.before or [place.result for place in results]}
        first = tuple(known.get(name) or Result(name, 0.0) for name in names)
    left, right, order = [], [], first or ()
    for number in _worth_showing([result.id for result in order], judged):
        place = ranked.get(order[number].id)
        result, new_rank, score = (
            (place.result, place.rank, place.result.score) if place else (order[number], None, None)
        )
        left.append(_passage(result, number + 1, new_rank, score, judged))
    for number in _worth_showing([place.result.id for place in results], judged):
        result, first_rank = results[number].result, results[number].first_rank
        other = first_rank if baseline is None else baseline_ranks.get(result.id)
        right.append(_passage(result, number + 1, other, result.score, judged))
    return Case(
        id=query.id,
        query=None if query.query is None else shorten(query.query, QUERY),
        candidates=len(results if query.before is None else query.before),
        tokens=query.tokens,
        characters=sum(lengths),
        longest=max(lengths, default=0),
        truncated=sum(map(bool, flags)) if any(flag is not None for flag in flags) else None,
        moved_from=results[0].first_rank if results else None,
        after=first_of(query.scores, TOP),
        before=None if before is None else first_of(before, TOP),
        left=tuple(left),
        right=tuple(right),
    )


def _worth_showing(ids: Sequence[str], judged: Mapping[str, int]) -> list[int]:
    """Indices of the first few passages, and of the first relevant one if it is not among them."""
    chosen = list(range(min(_SHOWN, len(ids))))
    relevant = next((number for number, name in enumerate(ids) if judged.get(name, 0) > 0), None)
    return chosen if relevant is None or relevant in chosen else [*chosen, relevant]


def _passage(result: Result, rank: int, other: int | None, score: float | None, judged: Mapping[str, int]) -> Passage:
    title = None if result.title is None else shorten(result.title, _TITLE)
    text = None if result.text is None else shorten(result.text, _TEXT)
    return Passage(shorten(result.id, 120), rank, other, title, text, score, judged.get(result.id))


def shorten(text: str, most: int) -> str:
    """The text on one line, with at most `most` characters: cut between words if possible, with an ellipsis."""
    line = " ".join(text[: 4 * most].split())
    if len(line) <= most and len(text) <= 4 * most:
        return line
    cut = line[: most - 1]
    between = cut.rfind(" ")
    return (cut[:between] if between > most // 2 else cut).rstrip() + "…"
