"""A small model before the large one: it scores all candidates of a chunk, and the large one those that it keeps.

A scoring like any other, made of two. Candidates that were left out have no score (NaN) and are not `kept`. A request
with no more candidates than are kept, and one that is answered in input order, goes to the large model as it is.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.results import Logits, PairScores, deepest
from rerank_cli.records import Request
from rerank_cli.run.chunks import Chunk
from rerank_cli.run.scoring.cascade_quality import Agreement
from rerank_cli.run.scoring.local import ScoredSlice, Scoring
from rerank_cli.run.stages import Slice, join, pair_texts, parts

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A chunk of n pairs. `doubtful` are the places of its requests that the small model is to thin out."""

    chunk: Chunk
    texts: PairTexts
    doubtful: tuple[slice, ...]

    def mask(self, places: Iterable[slice]) -> Mask:
        found = np.zeros(len(self.texts), dtype=np.bool_)
        for place in places:
            found[place] = True
        return found


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The same with what is `kept`, [n]; `looked_into` are requests of which the large model scores the rest too."""

    asked: _Asked
    kept: Mask
    looked_into: dict[int, slice]

    @property
    def rest(self) -> Index:
        return np.flatnonzero(self.asked.mask(self.looked_into.values()) & ~self.kept)


def cascaded(small: Scoring, large: Scoring, keep: int, slice_pairs: int, agreement: Agreement) -> Scoring:
    """Both models as one scoring; yields each chunk whole, as one slice."""

    def doubtful(slices: Iterable[Slice], asked: deque[_Asked]) -> Iterator[Slice]:
        for part in slices:
            if part.last:
                question = _asked(part.chunk, keep)
                asked.append(question)
                chosen = np.flatnonzero(question.mask(question.doubtful))
                yield from parts(part.chunk, question.texts.take(chosen), slice_pairs)

    def kept(slices: Iterable[Slice], chosen: deque[_Chosen]) -> Iterator[Slice]:
        asked: deque[_Asked] = deque()
        with closing(small(doubtful(slices, asked))) as scored:
            for found in join(scored):
                choice = _choose(asked.popleft(), found.pairs, keep, agreement)
                chosen.append(choice)
                yield from _for_large(choice, slice_pairs)

    def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
        chosen: deque[_Chosen] = deque()
        with closing(large(kept(slices, chosen))) as scored:
            whole = join(scored)
            for found in whole:
                choice = chosen.popleft()
                pairs = _spread(choice.kept, found.pairs)
                if len(choice.rest):
                    _compare(choice, pairs, next(whole).pairs, agreement)
                yield Slice(choice.asked.chunk, PairTexts((), (), ()), 0, last=True), pairs

    return score


def _asked(chunk: Chunk, keep: int) -> _Asked:
    requests = [record for record in chunk.records if isinstance(record, Request)]
    places, start = [], 0
    for request in requests:
        end = start + len(request.candidates)
        if end - start > keep and not request.shape.keeps_order:
            places.append(slice(start, end))
        start = end
    return _Asked(chunk, pair_texts(requests), tuple(places))


def _choose(asked: _Asked, scores: PairScores, keep: int, agreement: Agreement) -> _Chosen:
    """The best of each request by the small model's scores, ties in input order; one without a score is kept."""
    kept = ~asked.mask(asked.doubtful)
    found = deepest(scores.logits)
    found = np.where(np.isfinite(found), found, np.inf)
    looked_into: dict[int, slice] = {}
    start = 0
    for place in asked.doubtful:
        count = place.stop - place.start
        order = np.argsort(-found[start : start + count], kind="stable")
        kept[place.start + order[:keep]] = True
        start += count
        slot = agreement.draw(count)
        if slot is not None:
            looked_into[slot] = place
    return _Chosen(asked, kept, looked_into)


def _for_large(choice: _Chosen, slice_pairs: int) -> Iterator[Slice]:
    """Slices of what is kept, then of what is only looked into, so that the rows of the former are always the same."""
    asked, first = choice.asked, 0
    mark = hashlib.blake2b(np.packbits(choice.kept).tobytes(), digest_size=8).hexdigest()
    for part in parts(asked.chunk, asked.texts.take(np.flatnonzero(choice.kept)), slice_pairs, left=f"kept {mark} "):
        first = part.part + 1
        yield part
    if len(choice.rest):
        yield from parts(asked.chunk, asked.texts.take(choice.rest), slice_pairs, first, f"not kept {mark} ")


def _spread(kept: Mask, scores: PairScores) -> PairScores:
    """Scores of the pairs that were kept to scores of all n, NaN for the others."""
    count = len(kept)
    logits: Logits = np.full((count, *scores.logits.shape[1:]), np.nan, dtype=np.float32)
    tokens, truncated = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    logits[kept], tokens[kept], truncated[kept] = scores.logits, scores.tokens, scores.truncated
    passages = None
    if scores.passages is not None:
        passages = np.zeros((count, 2), dtype=np.int64)
        passages[kept] = scores.passages
    return PairScores(logits, tokens, truncated, passages, scores.duplicates, kept)


def _compare(choice: _Chosen, scores: PairScores, others: PairScores, agreement: Agreement) -> None:
    logits = deepest(scores.logits).copy()
    logits[choice.rest] = deepest(others.logits)
    for slot, place in choice.looked_into.items():
        agreement.note(slot, logits[place], choice.kept[place])
