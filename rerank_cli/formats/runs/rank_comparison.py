"""A query with its results beside the places that the first stage gave them.

The first stage's order is that of the input list (`index`); where all candidates have a first-stage score and the list
is not in the order of these, it is the order of the scores, highest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.contract import Source
from rerank_cli.formats.runs.results import QueryResults, Result, RunFile
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.records import Candidate, Request


@dataclass(frozen=True, slots=True)
class Placed:
    """A result with its new rank and its rank in the first stage, from 1; that one may be unknown."""

    result: Result
    rank: int
    first_rank: int | None


@dataclass(frozen=True, slots=True)
class RankComparison:
    """`results` best first; `before`, all candidates in the first stage's order, is None unless all are known.

    Candidates that the output left out (`--top-n`) are in `before` if the input is at hand, with no score of their own.
    """

    id: str
    query: str | None
    results: tuple[Placed, ...]
    before: tuple[Result, ...] | None
    tokens: int | None = None
    model: str | None = None


def compare_ranks(answers: RunFile, source: Source | None) -> Iterator[RankComparison]:
    """The queries of an output, with what its input tells of them: one pass over both, in step."""
    requests = (record for record in source if isinstance(record, Request)) if source else None
    for answer in answers:
        yield placed(answer, _request_of(answer, requests) if requests else None)


def _request_of(answer: QueryResults, requests: Iterator[Request]) -> Request:
    for request in requests:
        if answer.id in (key_of(request.id), request.query):
            return request
    missing = f"got query `{shown(answer.id)}`, which the input does not hold, or holds earlier"
    raise InputError(
        f"{answer.position}: was not made from this input ({missing}). Fix: --input with what was reranked"
    )


def placed(answer: QueryResults, request: Request | None) -> RankComparison:
    """Give each result its first-stage rank, and texts from its request where there is one."""
    results = answer.results
    if request:
        candidates = [_from_candidate(index, candidate) for index, candidate in enumerate(request.candidates)]
        by_id = {candidate.id: candidate for candidate in candidates}
        results = tuple(_filled(result, candidates, by_id, answer) for result in results)
        before: tuple[Result, ...] | None = _in_first_order(candidates)
    else:
        before = _in_first_order(results) if _complete(results) else None
    if before is not None:
        ranks = {_key(result): rank for rank, result in enumerate(before, 1)}
        found = [ranks.get(_key(result)) for result in results]
    else:
        found = [None if result.index is None else result.index + 1 for result in results]
    return RankComparison(
        answer.id,
        answer.query or (request.query if request else None),
        tuple(Placed(result, rank, first) for rank, (result, first) in enumerate(zip(results, found, strict=True), 1)),
        before,
        answer.tokens,
        answer.model,
    )


def _key(result: Result) -> str | int:
    return result.id if result.index is None else result.index


def _complete(results: Sequence[Result]) -> bool:
    """Are these all candidates, and is their first order known? Rows without an index are taken for all there were."""
    indexes = {result.index for result in results}
    if None in indexes:
        return all(result.first_score is not None for result in results)
    return indexes == set(range(len(results)))


def _in_first_order(results: Sequence[Result]) -> tuple[Result, ...]:
    given = sorted(results, key=lambda result: result.index or 0)
    scores = [result.first_score for result in given]
    known = [score for score in scores if score is not None]
    ordered = known in (sorted(known), sorted(known, reverse=True)) and all(r.index is not None for r in given)
    if len(known) < len(scores) or ordered:
        return tuple(given)
    return tuple(sorted(given, key=lambda result: -(result.first_score or 0.0)))


def _from_candidate(index: int, candidate: Candidate) -> Result:
    source = candidate.source if isinstance(candidate.source, dict) else {}
    inner = source.get("doc")
    title = source.get("title") or (inner.get("title") if isinstance(inner, dict) else None)
    text = candidate.text
    if isinstance(title, str) and title:
        text = text.removeprefix(title).lstrip()
    name = key_of(index if candidate.id is None else candidate.id)
    return Result(name, 0.0, index, None, candidate.score, title if isinstance(title, str) else None, text)


def _filled(result: Result, candidates: Sequence[Result], by_id: dict[str, Result], answer: QueryResults) -> Result:
    """A result with what is known of its candidate: found by its index, by its id where it has none."""
    if result.index is None:
        found = by_id.get(result.id)
    else:
        found = candidates[result.index] if 0 <= result.index < len(candidates) else None
    if found is None:
        got = f"got candidate `{shown(result.id)}` of query `{shown(answer.id)}`, which the input does not have"
        raise InputError(
            f"{answer.position}: was not made from this input ({got}). Fix: --input with what was reranked"
        )
    return replace(
        result, id=found.id, index=found.index, first_score=found.first_score, title=found.title, text=found.text
    )
