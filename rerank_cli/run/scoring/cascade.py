"""A cascade of two models: the small one scores all candidates of a request, the large one the best `keep` of them.

The other candidates have the score NaN and are not `kept`. A request with at most `keep` candidates, and one that is
answered in input order, is scored by the large model alone.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.results import PairScores, deepest
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.records import Request
from rerank_cli.run.chunks import Chunk
from rerank_cli.run.scoring.cascade_quality import Agreement
from rerank_cli.run.scoring.local import ScoredSlice, Scoring
from rerank_cli.run.stages import Slice, join, pair_texts, parts


@dataclass(slots=True)
class _Selection:
    """The pairs of a chunk, n of them, that the large model scores: those that are `kept`, bool [n], and then `rest`.

    `pruned` are the pairs of each request whose candidates the small model scores; they are not kept until `select`.
    `sampled` are requests, by slot in the sample, of which the large model scores all; `rest` are their other pairs.
    """

    texts: PairTexts
    kept: npt.NDArray[np.bool_]
    pruned: list[slice] = field(default_factory=list)
    sampled: dict[int, slice] = field(default_factory=dict)

    def select(self, scores: PairScores, agreement: Agreement) -> None:
        """Keep the best of each pruned request by the small model's scores, ties in input order, non-finite first."""
        found, start = deepest(scores.logits), 0
        found = np.where(np.isfinite(found), found, np.inf)
        for request in self.pruned:
            count = request.stop - request.start
            order = np.argsort(-found[start : start + count], kind="stable")
            self.kept[request.start + order[: agreement.keep]] = True
            start += count
            slot = agreement.draw(count)
            if slot is not None:
                self.sampled[slot] = request

    @property
    def rest(self) -> Index:
        rest = np.zeros(len(self.kept), dtype=np.bool_)
        for request in self.sampled.values():
            rest[request] = ~self.kept[request]
        return np.flatnonzero(rest)


def cascaded(small: Scoring, large: Scoring, slice_pairs: int, agreement: Agreement) -> Scoring:
    """Both models as one scoring; it yields each chunk as one slice."""

    def for_small(slices: Iterable[Slice], begun: deque[_Selection]) -> Iterator[Slice]:
        for part in slices:
            if part.last:
                selection = _begin(part.chunk, agreement.keep)
                begun.append(selection)
                yield from parts(part.chunk, selection.texts.take(np.flatnonzero(~selection.kept)), slice_pairs)

    def for_large(slices: Iterable[Slice], selected: deque[_Selection]) -> Iterator[Slice]:
        """Kept pairs and `rest` are in slices of their own: the rows of kept pairs do not depend on the sample."""
        begun: deque[_Selection] = deque()
        with closing(small(for_small(slices, begun))) as scored:
            for found in join(scored):
                selection = begun.popleft()
                selection.select(found.pairs, agreement)
                selected.append(selection)
                texts, kept, rest, first = selection.texts, selection.kept, selection.rest, 0
                digest = hashlib.blake2b(np.packbits(kept).tobytes(), digest_size=8).hexdigest()
                for part in parts(found.chunk, texts.take(np.flatnonzero(kept)), slice_pairs, left=f"kept {digest} "):
                    first = part.part + 1
                    yield part
                if len(rest):
                    yield from parts(found.chunk, texts.take(rest), slice_pairs, first, f"not kept {digest} ")

    def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
        selected: deque[_Selection] = deque()
        with closing(large(for_large(slices, selected))) as scored:
            chunks = join(scored)
            for found in chunks:
                selection = selected.popleft()
                pairs, rest = _spread(found.pairs, selection.kept), selection.rest
                if len(rest):
                    logits = deepest(pairs.logits).copy()
                    logits[rest] = deepest(next(chunks).pairs.logits)
                    for slot, request in selection.sampled.items():
                        agreement.note(slot, logits[request], selection.kept[request])
                yield Slice(found.chunk, PairTexts((), (), ()), 0, last=True), pairs

    return score


def _begin(chunk: Chunk, keep: int) -> _Selection:
    requests = [record for record in chunk.records if isinstance(record, Request)]
    texts = pair_texts(requests)
    selection, start = _Selection(texts, np.ones(len(texts), dtype=np.bool_)), 0
    for request in requests:
        end = start + len(request.candidates)
        if end - start > keep and not request.shape.keeps_order:
            selection.pruned.append(slice(start, end))
            selection.kept[start:end] = False
        start = end
    return selection


def _spread(scores: PairScores, kept: npt.NDArray[np.bool_]) -> PairScores:
    """Scores of the kept pairs as scores of all n pairs; the others have NaN and zeros."""
    logits = np.full((len(kept), *scores.logits.shape[1:]), np.nan, dtype=np.float32)
    tokens, truncated = np.zeros(len(kept), dtype=np.int64), np.zeros(len(kept), dtype=np.bool_)
    logits[kept], tokens[kept], truncated[kept] = scores.logits, scores.tokens, scores.truncated
    passages = None
    if scores.passages is not None:
        passages = np.zeros((len(kept), 2), dtype=np.int64)
        passages[kept] = scores.passages
    return PairScores(logits, tokens, truncated, passages, scores.duplicates, kept)
