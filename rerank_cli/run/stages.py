"""Stages between records and outcomes, as plain functions: chunks to slices of pairs, scores to rankings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import ScoreKind
from rerank_cli.engine.contract import ModelFacts
from rerank_cli.engine.results import PairScores, concatenate, deepest
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.ranking import PLAIN, Fusion, arrange
from rerank_cli.records import Outcome, Ranking, Rejection, Request
from rerank_cli.run.chunks import Chunk


@dataclass(frozen=True, slots=True)
class Slice:
    """Part number `part` of a chunk, from 0, with the texts of its pairs; `last` marks the chunk's last slice.

    A chunk in several slices has each distinct pair once: `inverse` [n] is then the index of each of the chunk's n
    pairs among those; None if one slice has all pairs. `left` names the subset of pairs if `texts` are not all pairs.
    """

    chunk: Chunk
    texts: PairTexts
    part: int
    last: bool
    inverse: Index | None = None
    left: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """A chunk with the scores of its pairs, in order."""

    chunk: Chunk
    pairs: PairScores


def slice_size(facts: ModelFacts, chunk_pairs: int) -> int | None:
    """The pairs of a slice, at most; None for a model that scores whole lists, whose chunks are one slice each."""
    return None if facts.listwise else chunk_pairs


def slices(chunks: Iterable[Chunk], slice_pairs: int | None) -> Iterator[Slice]:
    """Chunks as slices of at most `slice_pairs` pairs: a chunk of one large request is split to bound memory."""
    for chunk in chunks:
        requests = [record for record in chunk.records if isinstance(record, Request)]
        yield from parts(chunk, pair_texts(requests), slice_pairs)


def parts(chunk: Chunk, texts: PairTexts, slice_pairs: int | None, first: int = 0, left: str = "") -> Iterator[Slice]:
    """Texts of a chunk as slices numbered from `first`, at least one. `left` names the texts if they are a subset."""
    inverse = None
    if slice_pairs is None:
        yield Slice(chunk, texts, first, last=True, left=left)
        return
    if len(texts) > slice_pairs:
        texts, inverse = texts.distinct()
    starts = range(0, max(1, len(texts)), slice_pairs)
    for number, start in enumerate(starts, first):
        yield Slice(chunk, texts.part(start, start + slice_pairs), number, start == starts[-1], inverse, left)


def pair_texts(requests: Sequence[Request]) -> PairTexts:
    """All pairs of the requests, in order."""
    queries: list[str] = []
    passages: list[str] = []
    caps: list[int] = []
    instructions: list[str | None] = []
    lists: list[int] = []
    for number, request in enumerate(requests):
        count = len(request.candidates)
        queries += [request.query] * count
        instructions += [request.instruction or None] * count
        passages += [candidate.text for candidate in request.candidates]
        caps += [request.max_tokens_per_doc or 0] * count
        lists += [number] * count
    return PairTexts(queries, passages, caps, instructions, lists)


def join(scored: Iterable[tuple[Slice, PairScores]]) -> Iterator[Scored]:
    """Scored slices, in order, to whole chunks."""
    parts: list[PairScores] = []
    for part, scores in scored:
        parts.append(scores)
        if part.last:
            whole = concatenate(parts)
            yield Scored(part.chunk, whole if part.inverse is None else whole.take(part.inverse))
            parts = []


def rank_chunk(
    scored: Scored, top_n: int | None, fusion: Fusion = PLAIN, kind: ScoreKind = ScoreKind.SIGMOID
) -> list[Outcome]:
    """One outcome per record, in record order; see `rank`."""
    outcomes: list[Outcome] = []
    start = 0
    for record in scored.chunk.records:
        if isinstance(record, Rejection):
            outcomes.append(record)
        else:
            place = slice(start, start + len(record.candidates))
            outcomes.append(rank(record, scored, place, top_n, fusion, kind))
            start = place.stop
    return outcomes


def rank(
    request: Request,
    scored: Scored,
    place: slice,
    top_n: int | None,
    fusion: Fusion = PLAIN,
    kind: ScoreKind = ScoreKind.SIGMOID,
) -> Outcome:
    """Rank a request, whose pairs are at `place`: best first, ties in input order, cut to the record's or given top n.

    Sorts by the logit of the deepest layer (sigmoids saturate and tie), or by the score of `fusion`, which mixes scores
    of this `kind`, unless the record asks for another. Candidates that are not kept are left out of the order. A
    request with a score that is not finite, or without the first-stage scores that `fusion` needs, is rejected, and one
    that forbids truncation if a pair was truncated.
    """
    pairs, kind = scored.pairs, request.score_kind(kind)
    found = pairs.logits[place]
    kept = np.arange(len(found)) if pairs.kept is None else np.flatnonzero(pairs.kept[place])
    if not np.isfinite(found[kept]).all():
        message = "the model gave a score that is not a finite number, in fp32 too"
        return Rejection(request.position, "non_finite_score", message, request.id)
    truncated = pairs.truncated[place]
    if rejection := too_long(request, truncated):
        return rejection
    logits = deepest(found)
    try:
        best, fused = arrange(request, logits, kind, fusion, kept)
    except LookupError as error:
        return Rejection(request.position, "no_first_score", str(error.args[0]), request.id)
    order = np.sort(best) if request.shape.keeps_order else best[: request.top_n or top_n]
    tokens = int(pairs.tokens[place].sum())
    layers = None if found.ndim == 1 else found.tolist()
    passages = None if pairs.passages is None else [(start, end) for start, end in pairs.passages[place].tolist()]
    mixed = None if fused is None else fused.tolist()
    return Ranking(request, logits.tolist(), order.tolist(), tokens, layers, truncated.tolist(), passages, mixed)


def too_long(request: Request, truncated: npt.NDArray[np.bool_]) -> Rejection | None:
    """The rejection of a request that forbids truncation, by which of its pairs were truncated, [n]."""
    if request.truncation is not False or not truncated.any():
        return None
    which = f"document {int(np.flatnonzero(truncated)[0])}"
    message = f"{which} and the query are longer than --max-length, and the record forbids to truncate them"
    return Rejection(request.position, "too_long", message, request.id)
