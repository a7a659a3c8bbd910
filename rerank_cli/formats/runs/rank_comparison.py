"""The results of a query with their new ranks and their ranks in the first stage.

First-stage order is the order of the input list (`index`). If all candidates have a first-stage score and the list is
not sorted by it, it is the order of the scores, highest first. Scores that rise along the list are taken for distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.contract import Source
from rerank_cli.formats.runs.results import QueryResults, Result, Scores, stand_ins
from rerank_cli.formats.runs.run_file import RunFile, a_string, fields_of
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.records import Candidate, Request


@dataclass(frozen=True, slots=True)
class RankedResult:
    """A result with its new rank and its first-stage rank, both from 1; None if the latter is unknown."""

    result: Result
    rank: int
    first_rank: int | None


@dataclass(frozen=True, slots=True)
class RankComparison:
    """`results` are best first; `before` has all candidates in first-stage order, None unless all are known.

    With the input, `before` also has the candidates that the output omits (`--top-n`), without a score of the model.
    `scores` and `scores_before` are what measures of both orders are computed from.
    """

    id: str
    query: str | None
    results: tuple[RankedResult, ...]
    before: tuple[Result, ...] | None
    tokens: int | None = None
    model: str | None = None
    scores: Scores = field(default_factory=dict)
    scores_before: Scores | None = None


def compare_ranks(answers: RunFile, source: Source | None) -> Iterator[RankComparison]:
    """The queries of an output, with the texts and first-stage ranks of its input if given.

    Reads both once, in parallel. Raises InputError if the output does not belong to the input.
    """
    requests = (record for record in source if isinstance(record, Request)) if source else None
    for answer in answers:
        request = None
        if requests is not None:
            request = next((known for known in requests if answer.id in (key_of(known.id), known.query)), None)
            if request is None:
                got = f"got query `{shown(answer.id)}`, which the input does not hold, or holds earlier"
                raise _other_input(answer, got)
        yield _compare(answer, request)


def _compare(answer: QueryResults, request: Request | None) -> RankComparison:
    results = answer.results
    candidates = results if _complete(results) else None
    if request:
        candidates = tuple(_from_candidate(index, candidate) for index, candidate in enumerate(request.candidates))
        results = _filled(answer, candidates)
    before, scores_before = (None, None) if candidates is None else _in_first_order(candidates)
    if before is None:
        ranks = {_key(result): result.index + 1 for result in results if result.index is not None}
    else:
        ranks = {_key(result): rank for rank, result in enumerate(before, 1)}
    ranked = tuple(RankedResult(result, rank, ranks.get(_key(result))) for rank, result in enumerate(results, 1))
    query = answer.query or (request.query if request else None)
    names = {own.id: filled.id for own, filled in zip(answer.results, results, strict=True)}
    scores = {names[name]: score for name, score in answer.measured.items()}
    return RankComparison(answer.id, query, ranked, before, answer.tokens, answer.model, scores, scores_before)


def _key(result: Result) -> str | int:
    return result.id if result.index is None else result.index


def _complete(results: Sequence[Result]) -> bool:
    """Whether these are all candidates, in a known first-stage order. Rows without an index count as all candidates."""
    indexes = {result.index for result in results}
    if None in indexes:
        return all(result.first_score is not None for result in results)
    return indexes == set(range(len(results)))


def _in_first_order(results: Sequence[Result]) -> tuple[tuple[Result, ...], Scores]:
    """The results in first-stage order, and the scores to measure it by: stand-ins unless it is that of the scores."""
    given = sorted(results, key=lambda result: result.index or 0)
    known = {result.id: result.first_score for result in given if result.first_score is not None}
    scores = list(known.values())
    listed = all(result.index is not None for result in given)
    rising = listed and scores == sorted(scores) and scores[:1] < scores[-1:]
    if len(known) < len(given) or rising:
        return tuple(given), stand_ins([result.id for result in given])
    if not listed or scores != sorted(scores, reverse=True):
        given.sort(key=lambda result: -(result.first_score or 0.0))
    return tuple(given), known


def _from_candidate(index: int, candidate: Candidate) -> Result:
    source = fields_of(candidate.source)
    title = a_string(source.get("title") or fields_of(source.get("doc")).get("title"))
    text = candidate.text.removeprefix(title).lstrip() if title else candidate.text
    name = key_of(index if candidate.id is None else candidate.id)
    return Result(name, 0.0, index, None, candidate.score, title, text)


def _filled(answer: QueryResults, candidates: Sequence[Result]) -> tuple[Result, ...]:
    """Results with the data of their candidates, found by index, by id without one, else by text. Raises InputError."""
    known: dict[str | int, Result] = dict(enumerate(candidates))
    known |= {candidate.id: candidate for candidate in candidates}
    texts = {(candidate.title, candidate.text): candidate for candidate in reversed(candidates)}
    filled = []
    for result in answer.results:
        found = known.get(_key(result)) if result.named else texts.get((result.title or None, result.text))
        if found is None:
            got = f"got candidate `{shown(result.id)}` of query `{shown(answer.id)}`, which the input does not have"
            raise _other_input(answer, got)
        filled.append(replace(found, score=result.score, logit=result.logit, truncated=result.truncated))
    return tuple(filled)


def _other_input(answer: QueryResults, got: str) -> InputError:
    fix = "Fix: --input with the file that was reranked"
    return InputError(f"{answer.position}: the output was not made from this input ({got}). {fix}")
