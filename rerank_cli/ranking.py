"""Fusion of reranker and first-stage scores, query by query. Pure arithmetic, without files or models.

The order follows the scores as written: fused scores are float32, ties keep the reranker's order. The first stage is
ranked by its scores if every candidate has one, else by input order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import Fuse, Normalize, OnError, ScoreKind
from rerank_cli.errors import InputError
from rerank_cli.records import Record, Rejection, Request

Floats = npt.NDArray[np.float64]
Scores32 = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Fusion:
    """How scores are fused and which results are dropped; by default none.

    `weight` is the reranker's, 1 − `weight` the first stage's. `min_score` applies to the relevance score as written.
    """

    kind: Fuse | None = None
    k: int = 60
    weight: float = 0.5
    normalize: Normalize = Normalize.MINMAX
    min_score: float | None = None

    def settings(self) -> dict[str, Any]:
        """The parameters of the order by name; None for those that `kind` does not use."""
        return {
            "fuse": self.kind.value if self.kind else None,
            "fuse k": self.k if self.kind is Fuse.RRF else None,
            "fuse weight": self.weight if self.kind is Fuse.WEIGHTED else None,
            "normalize": self.normalize.value if self.kind is Fuse.WEIGHTED else None,
            "min score": self.min_score,
        }


PLAIN = Fusion()


def arrange(
    request: Request, logits: Scores32, kind: ScoreKind, fusion: Fusion, kept: Indices | None = None
) -> tuple[Indices, Scores32 | None]:
    """Candidate indices, best first, without those below the minimum; and all fused scores in input order, float32.

    Only the candidates that a cascade `kept` are ranked; the fused score of the others is NaN. Raises LookupError if
    scores are weighted and a candidate has no first-stage score.
    """
    kept = np.arange(len(logits)) if kept is None else kept
    by_logit = np.argsort(-logits[kept], kind="stable")
    written = logits if kind is ScoreKind.RAW else sigmoid(logits)
    order, fused = kept[by_logit], None
    if fusion.kind is not None:
        first = first_scores(request)
        if fusion.kind is Fuse.RRF:
            by_first = np.arange(len(kept)) if first is None else np.argsort(-first[kept], kind="stable")
            mixed = rrf((by_logit, by_first), fusion.k)
        elif first is None:
            raise LookupError(_without_first_score(request))
        else:
            mixed = weighted(written[kept].astype(np.float64), first[kept], fusion.weight, fusion.normalize)
        order = kept[by_logit[np.argsort(-mixed[by_logit], kind="stable")]]
        fused = np.full(len(logits), np.nan, dtype=np.float32)
        fused[kept] = mixed
    if fusion.min_score is not None:
        order = order[written[order] >= np.float32(fusion.min_score)]
    return order, fused


def first_scores(request: Request) -> Floats | None:
    """First-stage scores in input order, None unless every candidate has one in the range of float32."""
    scores = [candidate.score for candidate in request.candidates]
    if any(score is None for score in scores):
        return None
    found = np.array(scores, dtype=np.float64)
    return found if (np.abs(found) <= LARGEST).all() else None


def _without_first_score(request: Request) -> str:
    """The message about candidates without a usable first-stage score."""
    without = [i for i, c in enumerate(request.candidates) if c.score is None or not abs(c.score) <= LARGEST]
    count = f"got {len(without)} of {len(request.candidates)} without one, document {without[0]} first"
    return f"--fuse weighted needs a first-stage `score` for every document ({count})"


def check_first_scores(records: Iterator[Record], fusion: Fusion, on_error: OnError) -> Iterator[Record]:
    """The same records. With `--fuse weighted --on-error fail`, raises InputError before a bad record is scored."""
    strict = fusion.kind is Fuse.WEIGHTED and on_error is OnError.FAIL
    for record in records:
        if strict and not isinstance(record, Rejection) and first_scores(record) is None:
            raise InputError(f"{record.position}: {_without_first_score(record)}. Fix: --fuse rrf, which uses ranks")
        yield record


def rrf(rankings: Sequence[Indices], k: int) -> Scores32:
    """Reciprocal rank fusion: the sum of 1 / (k + rank), ranks from 1. Each ranking holds all indices, best first.

    Source: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", SIGIR 2009.
    """
    total = np.zeros(len(rankings[0]))
    for ranking in rankings:
        total[ranking] += 1.0 / (k + np.arange(1, len(ranking) + 1))
    return total.astype(np.float32)


def weighted(reranked: Floats, first: Floats, weight: float, normalize: Normalize) -> Scores32:
    """weight · reranked + (1 − weight) · first, both normalized over the query's candidates."""
    mixed = weight * normalized(reranked, normalize) + (1 - weight) * normalized(first, normalize)
    return mixed.astype(np.float32)


def normalized(scores: Floats, how: Normalize) -> Floats:
    """Scaled to 0…1 (minmax), to mean 0 and standard deviation 1 (zscore), or unchanged. Equal scores become 0."""
    if how is Normalize.NONE or not len(scores):
        return scores
    shifted = scores - (scores.min() if how is Normalize.MINMAX else scores.mean())
    scale = shifted.max() if how is Normalize.MINMAX else scores.std()
    return shifted / scale if np.ptp(scores) > 0 and scale > 0 else np.zeros_like(scores)


def sigmoid(logits: Scores32) -> Scores32:
    """1 / (1 + e^-x) in float64, rounded once to float32. Where e^-x overflows, the result is 0, which is correct."""
    with np.errstate(over="ignore"):
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
