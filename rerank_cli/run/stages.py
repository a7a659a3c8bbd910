"""The stages between records and outcomes: chunks to slices of pairs, scores to rankings.

Each is a plain function of its input; `pipeline` puts them on threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_cli.choices import ScoreKind
from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.results import PairScores, concatenate, deepest
from rerank_cli.ranking import PLAIN, Fusion, arrange
from rerank_cli.records import Outcome, Ranking, Rejection, Request
from rerank_cli.run.chunks import Chunk


@dataclass(frozen=True, slots=True)
class Slice:
    """Part number `part` of a chunk, from 0, with the texts of its pairs; `last` closes the chunk.

    `twins` names each pair of the chunk by its place among the pairs that its slices hold, which are distinct where a
    chunk takes several; None where the one slice holds all. `left` says which of the slice's pairs `texts` are, where
    they are not all of them.
    """

    chunk: Chunk
    texts: PairTexts
    part: int
    last: bool
    twins: Index | None = None
    left: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """A chunk with the scores of its pairs, in order."""

    chunk: Chunk
    pairs: PairScores


def slices(chunks: Iterable[Chunk], slice_pairs: int) -> Iterator[Slice]:
    """Chunks to be scored; one that holds an oversized request is cut so that memory stays bounded."""
    for chunk in chunks:
        texts = pair_texts([record for record in chunk.records if isinstance(record, Request)])
        yield from parts(chunk, texts, slice_pairs)


def parts(chunk: Chunk, texts: PairTexts, slice_pairs: int, first: int = 0, left: str = "") -> Iterator[Slice]:
    """Texts of a chunk, which `left` names where they are not all, as slices; one where there are none."""
    twins = None
    if len(texts) > slice_pairs:
        texts, twins = texts.distinct()
    starts = range(0, max(1, len(texts)), slice_pairs)
    for number, start in enumerate(starts, first):
        yield Slice(chunk, texts.part(start, start + slice_pairs), number, start == starts[-1], twins, left)


def pair_texts(requests: Sequence[Request]) -> PairTexts:
    """All pairs of the requests, in order."""
    queries: list[str] = []
    passages: list[str] = []
    caps: list[int] = []
    instructions: list[str | None] = []
    for request in requests:
        count = len(request.candidates)
        queries += [request.query] * count
        instructions += [request.instruction or None] * count
        passages += [candidate.text for candidate in request.candidates]
        caps += [request.max_tokens_per_doc or 0] * count
    return PairTexts(queries, passages, caps, instructions)


def join(scored: Iterable[tuple[Slice, PairScores]]) -> Iterator[Scored]:
    """Slices, in order, to whole chunks."""
    parts: list[PairScores] = []
    for part, scores in scored:
        parts.append(scores)
        if part.last:
            whole = concatenate(parts)
            yield Scored(part.chunk, whole if part.twins is None else whole.take(part.twins))
            parts = []


def rank_chunk(
    scored: Scored, top_n: int | None, fusion: Fusion = PLAIN, kind: ScoreKind = ScoreKind.SIGMOID
) -> list[Outcome]:
    """One outcome a record, in record order."""
    outcomes: list[Outcome] = []
    start = 0
    for record in scored.chunk.records:
        if isinstance(record, Rejection):
            outcomes.append(record)
            continue
        end = start + len(record.candidates)
        outcomes.append(rank(record, scored, slice(start, end), top_n, fusion, kind))
        start = end
    return outcomes


def rank(
    request: Request,
    scored: Scored,
    place: slice,
    top_n: int | None,
    fusion: Fusion = PLAIN,
    kind: ScoreKind = ScoreKind.SIGMOID,
) -> Outcome:
    """Best first, ties in input order, cut to the top n (the record's own, else the one given).

    The request's pairs stand at `place`. By logit, the deepest layer's (a sigmoid saturates and ties), or by what
    `fusion` makes of it, where scores count as `kind` writes them. A request with a score that is no number, or without
    the first-stage scores that are to be mixed in, is rejected whole. Candidates that were not kept have no place in
    the order.
    """
    pairs = scored.pairs
    found = pairs.logits[place]
    kept = np.arange(len(found)) if pairs.kept is None else np.flatnonzero(pairs.kept[place])
    if not np.isfinite(found[kept]).all():
        message = "the model gave a score that is not a finite number, in fp32 too"
        return Rejection(request.position, "non_finite_score", message, request.id)
    layers, logits = None if found.ndim == 1 else found.tolist(), deepest(found)
    try:
        best, fused = arrange(request, logits, kind, fusion, kept)
    except LookupError as error:
        return Rejection(request.position, "no_first_score", str(error.args[0]), request.id)
    order = np.sort(best) if request.shape.keeps_order else best[: request.top_n or top_n]
    return Ranking(
        request,
        logits.tolist(),
        order.tolist(),
        int(pairs.tokens[place].sum()),
        layers,
        pairs.truncated[place].tolist(),
        None if pairs.passages is None else [(start, end) for start, end in pairs.passages[place].tolist()],
        None if fused is None else fused.tolist(),
    )
