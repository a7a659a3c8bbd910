"""The reranker's scores mixed with the first stage's, query by query. Pure arithmetic: knows no files and no models.

The order follows what is written: fused scores are float32, ties keep the reranker's order. The first stage counts by
its scores where every candidate has one, else by the order in which the candidates came.
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

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Fusion:
    """How scores are mixed, and which results are dropped; the default does neither.

    `weight` is the reranker's, the first stage has the rest of 1. `min_score` is held against the relevance score as it
    is written.
    """

    kind: Fuse | None = None
    k: int = 60
    weight: float = 0.5
    normalize: Normalize = Normalize.MINMAX
    min_score: float | None = None

    def settings(self) -> dict[str, Any]:
        """What decides the order, by name; None for what has no say."""
        weighted, rrf = self.kind is Fuse.WEIGHTED, self.kind is Fuse.RRF
        return {
            "fuse": self.kind.value if self.kind else None,
            "fuse k": self.k if rrf else None,
            "fuse weight": self.weight if weighted else None,
            "normalize": self.normalize.value if weighted else None,
            "min score": self.min_score,
        }


PLAIN = Fusion()


def arrange(
    request: Request, logits: Scores32, kind: ScoreKind, fusion: Fusion, kept: Indices | None = None
) -> tuple[Indices, Scores32 | None]:
    """Candidates best first, those below the minimum left out, and the fused score of each in input order.

    Those that a cascade has not `kept` are as if they were not there; their fused score is NaN. Raises LookupError if
    scores shall be weighted and a candidate has none of the first stage.
    """
    there = np.arange(len(logits)) if kept is None else kept
    ours = np.argsort(-logits[there], kind="stable")
    written = logits if kind is ScoreKind.RAW else sigmoid(logits)
    order, fused = there[ours], None
    if fusion.kind is not None:
        mixed = _mixed(request, written, there, ours, fusion)
        order = there[ours[np.argsort(-mixed[ours], kind="stable")]]
        fused = np.full(len(logits), np.nan, dtype=np.float32)
        fused[there] = mixed
    if fusion.min_score is not None:
        order = order[written[order] >= np.float32(fusion.min_score)]
    return order, fused


def _mixed(request: Request, written: Scores32, there: Indices, ours: Indices, fusion: Fusion) -> Scores32:
    """The fused scores of the candidates that are `there`, of which `ours` is the reranker's order."""
    first = first_scores(request)
    if fusion.kind is Fuse.RRF:
        given = np.arange(len(there)) if first is None else np.argsort(-first[there], kind="stable")
        return rrf((ours, given), fusion.k)
    if first is None:
        raise LookupError(lacking(request))
    return weighted(written[there].astype(np.float64), first[there], fusion.weight, fusion.normalize)


def first_scores(request: Request) -> Floats | None:
    """The first stage's scores in input order, None unless every candidate has one that float32 can hold."""
    scores = [candidate.score for candidate in request.candidates]
    if any(score is None for score in scores):
        return None
    found = np.array(scores, dtype=np.float64)
    return found if (np.abs(found) <= _LARGEST).all() else None


def lacking(request: Request) -> str:
    """What keeps a request from a weighted mix."""
    without = [i for i, c in enumerate(request.candidates) if c.score is None or not abs(c.score) <= _LARGEST]
    count = f"got {len(without)} of {len(request.candidates)} without one, document {without[0]} first"
    return f"--fuse weighted needs a first-stage `score` of every document ({count})"


def demanding(records: Iterator[Record], fusion: Fusion, on_error: OnError) -> Iterator[Record]:
    """Where a bad record ends the run, let one that cannot be mixed end it before anything is scored."""
    must = fusion.kind is Fuse.WEIGHTED and on_error is OnError.FAIL
    for record in records:
        if must and not isinstance(record, Rejection) and first_scores(record) is None:
            raise InputError(f"{record.position}: {lacking(record)}. Fix: --fuse rrf, which goes by rank")
        yield record


def rrf(rankings: Sequence[Indices], k: int) -> Scores32:
    """Reciprocal rank fusion, the sum of 1 / (k + rank), ranks from 1; each ranking holds all indices, best first.

    Source: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", SIGIR 2009.
    """
    total = np.zeros(len(rankings[0]))
    for ranking in rankings:
        total[ranking] += 1.0 / (k + np.arange(1, len(ranking) + 1))
    return total.astype(np.float32)


def weighted(ours: Floats, first: Floats, weight: float, normalize: Normalize) -> Scores32:
    """weight · ours + (1 − weight) · first, each normalized over the query's candidates before."""
    mixed = weight * normalized(ours, normalize) + (1 - weight) * normalized(first, normalize)
    return mixed.astype(np.float32)


def normalized(scores: Floats, how: Normalize) -> Floats:
    """To 0…1 (minmax), to mean 0 and standard deviation 1 (zscore), or as they are. Equal scores become 0."""
    if how is Normalize.NONE:
        return scores
    shifted = scores - (scores.min() if how is Normalize.MINMAX else scores.mean())
    scale = shifted.max() if how is Normalize.MINMAX else scores.std()
    return shifted / scale if np.ptp(scores) > 0 and scale > 0 else np.zeros_like(scores)


def sigmoid(logits: Scores32) -> Scores32:
    """1 / (1 + e^-x) in float64, rounded once. Where e^-x overflows the quotient is 0, which is right."""
    with np.errstate(over="ignore"):
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
