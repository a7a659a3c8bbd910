"""Logits to the scores that are written: float32, printed as the shortest decimal that reads back exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import ScoreKind
from rerank_cli.ranking import sigmoid
from rerank_cli.records import Ranking


class Scores(NamedTuple):
    """Candidate indices in output order; scores and logits aligned with it, float32 [n]."""

    order: Sequence[int]
    values: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]


def scores_of(ranking: Ranking, kind: ScoreKind, best_first: bool = False) -> Scores:
    """The candidates to write, with scores; `best_first` also sorts shapes that are answered in input order.

    The scores are of the kind that the record asks for, else of `kind`.
    """
    logits = np.asarray(ranking.logits, dtype=np.float32)
    order = ranking.order
    if best_first and ranking.request.shape.keeps_order:
        best = logits if ranking.fused is None else np.asarray(ranking.fused, dtype=np.float32)
        order = sorted(order, key=lambda index: (-best[index], -logits[index], index))
    chosen = logits[np.asarray(order, dtype=np.intp)]
    kind = ranking.request.score_kind(kind)
    return Scores(order, chosen if kind is ScoreKind.RAW else sigmoid(chosen), chosen)


def run_scores(ranking: Ranking, kind: ScoreKind) -> tuple[Sequence[int], list[np.float32]]:
    """For a run file: candidate indices, best first, and strictly decreasing scores (the fused ones if present).

    Evaluators ignore ranks, sort by float32 score and break ties by document id: without ties all agree on the order.
    """
    scores = scores_of(ranking, kind, best_first=True)
    values = scores.values if ranking.fused is None else fused_of(ranking, scores.order)
    return scores.order, strictly_decreasing(values)


def fused_of(ranking: Ranking, order: Sequence[int]) -> npt.NDArray[np.float32]:
    return np.asarray(ranking.fused, dtype=np.float32)[np.asarray(order, dtype=np.intp)]


def strictly_decreasing(values: npt.NDArray[np.float32]) -> list[np.float32]:
    """Lowers each value that is not below its predecessor to the next smaller float32 after the predecessor."""
    lowered: list[np.float32] = []
    for value in values:
        if lowered and not value < lowered[-1]:
            value = np.nextafter(lowered[-1], np.float32(-np.inf))
        lowered.append(value)
    return lowered
