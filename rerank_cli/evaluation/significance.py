"""Paired significance tests of the difference between two runs over the same queries."""

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
    """Mean of after − before, its confidence interval and two p-values (None for a single query), and query counts."""

    mean: float
    low: float | None
    high: float | None
    t_test_p: float | None
    permutation_p: float
    wins: int
    losses: int
    ties: int


def compare(before: Sequence[float], after: Sequence[float]) -> Difference | None:
    """Compare the values of two runs, paired by index; both tests are two-sided. None without a pair of numbers.

    The interval is that of the paired t-test, mean ± t·s/√n at 95 %: Student, "The probable error of a mean",
    Biometrika 6 (1908). The permutation test flips the signs of the differences, in all 2ⁿ ways if these are at most
    10,000, else in 10,000 ways drawn with a fixed seed: R. A. Fisher, "The Design of Experiments" (1935); for
    retrieval: Smucker, Allan and Carterette, CIKM 2007.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return None
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
    """The share of sign flips whose sum is at least as far from 0 as the observed sum.

    Drawn flips count the observed one too: Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    nonzero = differences[differences != 0]
    observed = abs(nonzero.sum()) * (1 - 1e-12)
    if len(nonzero) <= math.log2(RESAMPLES):
        ways = 2 ** len(nonzero)
        flips = (np.arange(ways)[:, None] >> np.arange(len(nonzero))) & 1
        return float((np.abs((1 - 2 * flips) @ nonzero) >= observed).mean())
    random = np.random.default_rng(_SEED)
    rows = max(1, _BLOCK // len(nonzero))
    extreme = 0
    for start in range(0, RESAMPLES, rows):
        flips = random.integers(0, 2, (min(rows, RESAMPLES - start), len(nonzero)), dtype=np.int8)
        extreme += int((np.abs((1 - 2 * flips) @ nonzero) >= observed).sum())
    return (1 + extreme) / (1 + RESAMPLES)
