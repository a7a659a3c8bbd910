"""Is a difference between two runs more than chance? Paired tests over the queries that both were asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.errors import UsageError

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 0
_BLOCK = 2_000_000
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of after less before with its confidence interval, two tests' p-values, and how the queries went.

    None where there is nothing to tell it by: an interval and a t-test want two queries.
    """

    mean: float
    low: float | None
    high: float | None
    t_test_p: float | None
    permutation_p: float
    wins: int
    losses: int
    ties: int


def compare(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Paired by place, two-sided.

    The interval is Student's, mean ± t·s/√n at 95 %, the one that belongs to the paired t-test: Student, "The probable
    error of a mean", Biometrika 6 (1908). The permutation test flips the signs of the differences, all 2ⁿ ways where
    that are no more than 10,000, else so many drawn with a fixed seed: R. A. Fisher, "The Design of Experiments"
    (1935), for retrieval: Smucker, Allan and Carterette, CIKM 2007.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    low, high, p = _student(differences)
    wins, losses = int((differences > _TIE).sum()), int((differences < -_TIE).sum())
    mean = float(differences.mean())
    return Difference(mean, low, high, p, _permutation(differences), wins, losses, len(differences) - wins - losses)


def _student(differences: npt.NDArray[np.float64]) -> tuple[float | None, float | None, float | None]:
    count = len(differences)
    if count < 2:
        return None, None, None
    try:
        from scipy.special import stdtr, stdtrit
    except ImportError as error:
        raise UsageError("a t-test needs scipy. Fix: pip install 'rerank-cli[eval]'") from error
    mean, error_of_mean = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(count)
    if error_of_mean == 0:
        return mean, mean, 1.0 if mean == 0 else 0.0
    reach = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * error_of_mean
    return mean - reach, mean + reach, float(2 * stdtr(count - 1, -abs(mean) / error_of_mean))


def _permutation(differences: npt.NDArray[np.float64]) -> float:
    """The share of sign flips that are as far from 0 as what was seen; drawn ones count what was seen as one of them.

    The added one: Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    moved = differences[differences != 0]
    seen = abs(moved.sum()) * (1 - 1e-12)
    if len(moved) <= math.log2(RESAMPLES):
        ways = 2 ** len(moved)
        flips = (np.arange(ways)[:, None] >> np.arange(len(moved))) & 1
        return float((np.abs((1 - 2 * flips) @ moved) >= seen).mean())
    random = np.random.default_rng(_SEED)
    rows = max(1, _BLOCK // len(moved))
    extreme = 0
    for start in range(0, RESAMPLES, rows):
        flips = random.integers(0, 2, (min(rows, RESAMPLES - start), len(moved)), dtype=np.int8)
        extreme += int((np.abs((1 - 2 * flips) @ moved) >= seen).sum())
    return (1 + extreme) / (1 + RESAMPLES)
