"""The stages between records and outcomes: chunks to prepared slices, slices to logits, logits to rankings.

Each is a plain function of its input; `run` puts them on threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import PairTexts, Prepared
from rerank_cli.jobs.chunks import Chunk
from rerank_cli.jobs.tally import Tally
from rerank_cli.records import Outcome, Ranking, Rejection, Request

Logits = npt.NDArray[np.float32]


class Preparer(Protocol):
    """The part of a session that runs beside the device."""

    def prepare(self, pairs: PairTexts) -> Prepared: ...


@dataclass(frozen=True, slots=True)
class Slice:
    """Part number `part` of a chunk, from 0, made ready for the device; `last` closes the chunk.

    `twins` names each pair of the chunk by its place among the pairs that its slices hold, which are distinct where a
    chunk takes several; None where the one slice holds all.
    """

    chunk: Chunk
    prepared: Prepared
    part: int
    last: bool
    twins: Index | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A chunk with what the device made of its pairs, in order.

    `logits` are [n], or [n, layers]; `tokens` and `truncated` [n]. `passages` are the characters (start, end) of the
    best passage of each, [n, 2], None unless long documents are read in passages.
    """

    chunk: Chunk
    logits: Logits
    tokens: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]
    duplicates: int
    passages: npt.NDArray[np.int64] | None = None


def prepare_slices(chunks: Iterable[Chunk], session: Preparer, slice_pairs: int, tally: Tally) -> Iterator[Slice]:
    """Tokenize and plan chunks; one that holds an oversized request is cut so that memory stays bounded."""
    for chunk in chunks:
        texts = pair_texts([record for record in chunk.records if isinstance(record, Request)])
        twins = None
        if len(texts) > slice_pairs:
            texts, twins = texts.distinct()
        starts = range(0, max(1, len(texts)), slice_pairs)
        for number, start in enumerate(starts):
            part = texts.part(start, start + slice_pairs)
            with tally.timing("tokenize"):
                prepared = session.prepare(part)
            yield Slice(chunk, prepared, number, start == starts[-1], twins)


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


def join(slices: Sequence[Slice], logits: Sequence[Logits]) -> Scored:
    """Put a chunk's slices together again, with the logits of each."""
    parts = [part.prepared for part in slices]
    pooled = [part.windows.pool(scores) for part, scores in zip(parts, logits, strict=True)]
    scores = np.concatenate([found for found, _ in pooled])
    spans = [part.spans[best] for part, (_, best) in zip(parts, pooled, strict=True) if part.spans is not None]
    passages = np.concatenate(spans) if spans else None
    tokens = np.concatenate([part.tokens for part in parts])
    truncated = np.concatenate([part.truncated for part in parts])
    duplicates = sum(len(part.distinct) - part.distinct_pairs for part in parts)
    twins = slices[-1].twins
    if twins is not None:
        duplicates += len(twins) - len(tokens)
        scores, tokens, truncated = scores[twins], tokens[twins], truncated[twins]
        passages = None if passages is None else passages[twins]
    return Scored(slices[-1].chunk, scores, tokens, truncated, duplicates, passages)


def rank_chunk(scored: Scored, top_n: int | None) -> list[Outcome]:
    """One outcome a record, in record order."""
    outcomes: list[Outcome] = []
    start = 0
    for record in scored.chunk.records:
        if isinstance(record, Rejection):
            outcomes.append(record)
            continue
        end = start + len(record.candidates)
        outcomes.append(rank(record, scored, slice(start, end), top_n))
        start = end
    return outcomes


def rank(request: Request, scored: Scored, place: slice, top_n: int | None) -> Outcome:
    """Best first, ties in input order, cut to the top n (the record's own, else the one given).

    The request's pairs stand at `place`. Always by logit, the deepest layer's: a sigmoid saturates and ties. A request
    with a score that is no number is rejected whole.
    """
    found = scored.logits[place]
    if not np.isfinite(found).all():
        message = "the model gave a score that is not a finite number, in fp32 too"
        return Rejection(request.position, "non_finite_score", message, request.id)
    layers, logits = (None, found) if found.ndim == 1 else (found.tolist(), found[:, -1])
    if request.shape.keeps_order:
        order: Sequence[int] = range(len(logits))
    else:
        order = np.argsort(-logits, kind="stable")[: request.top_n or top_n].tolist()
    return Ranking(
        request,
        logits.tolist(),
        order,
        int(scored.tokens[place].sum()),
        layers,
        scored.truncated[place].tolist(),
        None if scored.passages is None else [(start, end) for start, end in scored.passages[place].tolist()],
    )
