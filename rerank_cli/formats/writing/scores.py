"""Logits to the numbers that are written: float32, printed as the shortest decimal that reads back exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import ScoreKind
from rerank_cli.ranking import sigmoid
from rerank_cli.records import Ranking


class Scores(NamedTuple):
    """Aligned with `order`, the candidates in the order they are written. Elements are numpy float32."""

    order: Sequence[int]
    values: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]


def scores_of(ranking: Ranking, kind: ScoreKind, best_first: bool = False) -> Scores:
    """The candidates to be written with their scores; `best_first` also for shapes answered in input order."""
    logits = np.asarray(ranking.logits, dtype=np.float32)
    order = ranking.order
    if best_first and ranking.request.shape.keeps_order:
        best = logits if ranking.fused is None else np.asarray(ranking.fused, dtype=np.float32)
        order = sorted(order, key=lambda index: (-best[index], -logits[index], index))
    chosen = logits[np.asarray(order, dtype=np.intp)]
    return Scores(order, chosen if kind is ScoreKind.RAW else sigmoid(chosen), chosen)


def run_scores(ranking: Ranking, kind: ScoreKind) -> tuple[Sequence[int], list[np.float32]]:
    """For a run file: candidates best first, and one strictly decreasing score each, the fused one if there is one.

    Evaluators sort by score alone, in float32, and break ties by document id; strictly decreasing, all see our order.
    """
    scores = scores_of(ranking, kind, best_first=True)
    values = scores.values if ranking.fused is None else fused_of(ranking, scores.order)
    return scores.order, strictly_decreasing(values)


def fused_of(ranking: Ranking, order: Sequence[int]) -> npt.NDArray[np.float32]:
    """The fused scores of the candidates of `order`."""
    return np.asarray(ranking.fused, dtype=np.float32)[np.asarray(order, dtype=np.intp)]


def strictly_decreasing(values: npt.NDArray[np.float32]) -> list[np.float32]:
    """The values, each lowered to the next float32 below its predecessor where it is not less already."""
    lowest = np.float32(-np.inf)
    lowered: list[np.float32] = []
    for value in values:
        if lowered and not value < lowered[-1]:
            value = np.nextafter(lowered[-1], lowest)
        lowered.append(value)
    return lowered
