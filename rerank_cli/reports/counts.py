"""Counts of bounded size for inputs of any length: a score histogram, a table of ranks, extremes."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_cli.formats.runs.results import Result

T = TypeVar("T")
WIDTH = 0.125
MOST_RANKS = 1024
_ENDS = 17.0  # in float32 no probability below 1 has a logit above 16.7
_FAR = 1e4


class ScoreCounts:
    """Histogram of scores on the logit scale in steps of `WIDTH`; saturated probabilities count at its ends."""

    def __init__(self) -> None:
        self._raw: Counter[int] = Counter()
        self._from_probabilities: Counter[int] = Counter()
        self.probabilities = True

    def add(self, result: Result) -> None:
        score = result.score
        self.probabilities = self.probabilities and 0.0 <= score <= 1.0
        self._raw[_step(score if result.logit is None else result.logit)] += 1
        if self.probabilities:
            self._from_probabilities[_step(logit_of(score) if result.logit is None else result.logit)] += 1

    @property
    def counts(self) -> Counter[int]:
        """Count by step number."""
        return self.steps(self.probabilities)

    def steps(self, probabilities: bool) -> Counter[int]:
        """The counts with scores read as probabilities, or as logits."""
        return self._from_probabilities if probabilities else self._raw

    @property
    def total(self) -> int:
        return sum(self._raw.values())


def logit_of(probability: float) -> float:
    """The inverse of the sigmoid, clamped to ±17."""
    if probability <= 0.0 or probability >= 1.0:
        return math.copysign(_ENDS, probability - 0.5)
    return max(-_ENDS, min(_ENDS, math.log(probability / (1.0 - probability))))


def _step(value: float) -> int:
    return math.floor(max(-_FAR, min(_FAR, value)) / WIDTH)


class RankTable:
    """How often first-stage rank i became new rank j, both from 1; ranks above `MOST_RANKS` count as that."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros((16, 16), dtype=np.int64)
        self.deepest = (0, 0)

    def add(self, first_rank: int, rank: int) -> None:
        first_rank, rank = min(first_rank, MOST_RANKS), min(rank, MOST_RANKS)
        needed = max(first_rank, rank)
        if needed > len(self._counts):
            more = (1 << (needed - 1).bit_length()) - len(self._counts)
            self._counts = np.pad(self._counts, (0, more))
        self._counts[first_rank - 1, rank - 1] += 1
        self.deepest = (max(self.deepest[0], first_rank), max(self.deepest[1], rank))

    @property
    def total(self) -> int:
        return int(self._counts.sum())

    def table(self, cells: int) -> tuple[npt.NDArray[np.int64], int]:
        """The counts [first, new] in at most `cells` by `cells` cells, and the ranks per cell."""
        step = max(1, math.ceil(max(self.deepest) / cells))
        rows, columns = (math.ceil(depth / step) for depth in self.deepest)
        padded = np.zeros((rows * step, columns * step), dtype=np.int64)
        part = self._counts[: rows * step, : columns * step]
        padded[: part.shape[0], : part.shape[1]] = part
        return padded.reshape(rows, step, columns, step).sum(axis=(1, 3)), step

    def origins(self, top: int, bounds: tuple[int, ...]) -> list[int]:
        """The pairs now in the `top`, counted by first-stage rank: up to each bound, and above the last."""
        found = self._counts[:, :top].sum(axis=1)
        edges = [0, *bounds, len(found)]
        return [int(found[low:high].sum()) for low, high in itertools.pairwise(edges)]


class Extremes(Generic[T]):
    """The `size` items with the highest values; of equal values, the earlier ones."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, T]] = []
        self._number = 0

    def offer(self, value: float, item: T) -> None:
        self._number += 1
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (value, -self._number, item))
        elif value > self._heap[0][0]:
            heapq.heapreplace(self._heap, (value, -self._number, item))

    def best_first(self) -> list[T]:
        return [item for _, _, item in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]
