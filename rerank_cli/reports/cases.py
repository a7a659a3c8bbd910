"""A query cut down to what a page can show of it: figures, and a few passages of both orders with shortened texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerank_cli.formats.runs.rank_comparison import Placed, RankComparison
from rerank_cli.formats.runs.results import Result

TOP = 10
_SHOWN = 3
_TEXT = 340
_TITLE = 160
QUERY = 300


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage in one of the two orders. `other_rank` is its rank in the other one, `relevance` None if not judged."""

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
    """`after` and `before` are the ids of the best ten in both orders; `before` is None where that order is unknown."""

    id: str
    query: str | None
    candidates: int
    tokens: int | None
    characters: int
    longest: int
    truncated: int | None
    moved_from: int | None
    after: tuple[str, ...]
    before: tuple[str, ...] | None
    left: tuple[Passage, ...]
    right: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A case with its measures, by name, in both orders; `before` is empty where that order is unknown."""

    case: Case
    before: Mapping[str, float]
    after: Mapping[str, float]

    def change(self, measure: str) -> float | None:
        return self.after[measure] - self.before[measure] if self.before else None


def case_of(query: RankComparison, judged: Mapping[str, int], baseline: Sequence[str] | None) -> Case:
    """The case of a query; a `baseline` order takes the place of the first stage's."""
    flags = [place.result.truncated for place in query.results]
    lengths = [len(place.result.text or "") + len(place.result.title or "") for place in query.results]
    first = _first_order(query, baseline)
    ranks = {place.result.id: place for place in query.results}
    return Case(
        id=query.id,
        query=None if query.query is None else shorten(query.query, QUERY),
        candidates=len(query.results) if query.before is None else len(query.before),
        tokens=query.tokens,
        characters=sum(lengths),
        longest=max(lengths, default=0),
        truncated=sum(map(bool, flags)) if any(flag is not None for flag in flags) else None,
        moved_from=query.results[0].first_rank if query.results else None,
        after=tuple(place.result.id for place in query.results[:TOP]),
        before=None if first is None else tuple(result.id for result in first[:TOP]),
        left=_left(first or (), ranks, judged),
        right=_right(query, judged, None if baseline is None else {name: n for n, name in enumerate(baseline, 1)}),
    )


def _first_order(query: RankComparison, baseline: Sequence[str] | None) -> tuple[Result, ...] | None:
    if baseline is None:
        return query.before
    known = {result.id: result for result in query.before or [place.result for place in query.results]}
    return tuple(known.get(name) or Result(name, 0.0) for name in baseline)


def _left(first: Sequence[Result], ranks: Mapping[str, Placed], judged: Mapping[str, int]) -> tuple[Passage, ...]:
    chosen = _worth_showing([result.id for result in first], judged)
    passages = []
    for number in chosen:
        result = first[number]
        place = ranks.get(result.id)
        shown = place.result if place else result
        passages.append(_passage(shown, number + 1, place.rank if place else None, bool(place), judged))
    return tuple(passages)


def _right(query: RankComparison, judged: Mapping[str, int], ranks: Mapping[str, int] | None) -> tuple[Passage, ...]:
    chosen = _worth_showing([place.result.id for place in query.results], judged)
    places = [query.results[number] for number in chosen]
    return tuple(
        _passage(p.result, p.rank, p.first_rank if ranks is None else ranks.get(p.result.id), True, judged)
        for p in places
    )


def _worth_showing(ids: Sequence[str], judged: Mapping[str, int]) -> list[int]:
    """The first few places, and the first relevant one if it is none of them."""
    chosen = list(range(min(_SHOWN, len(ids))))
    relevant = next((number for number, name in enumerate(ids) if judged.get(name, 0) > 0), None)
    return chosen if relevant is None or relevant in chosen else [*chosen, relevant]


def _passage(result: Result, rank: int, other: int | None, scored: bool, judged: Mapping[str, int]) -> Passage:
    return Passage(
        shorten(result.id, 120),
        rank,
        other,
        None if result.title is None else shorten(result.title, _TITLE),
        None if result.text is None else shorten(result.text, _TEXT),
        result.score if scored else None,
        judged.get(result.id),
    )


def shorten(text: str, most: int) -> str:
    """At most so many characters on one line, cut between words where there are any, with an ellipsis."""
    line = " ".join(text[: 4 * most].split())
    if len(line) <= most and len(text) <= 4 * most:
        return line
    cut = line[: most - 1]
    between = cut.rfind(" ")
    return (cut[:between] if between > most // 2 else cut).rstrip() + "…"
