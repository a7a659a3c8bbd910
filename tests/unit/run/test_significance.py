import numpy as np
import pytest
from scipy import stats

from rerank_cli.evaluation.significance import compare

RNG = np.random.default_rng(3)
BEFORE = RNG.random(200)
AFTER = np.clip(BEFORE + RNG.normal(0.02, 0.1, 200), 0, 1)


def test_the_t_test_and_its_interval_are_those_of_scipy():
    found = compare(BEFORE, AFTER)
    expected = stats.ttest_rel(AFTER, BEFORE)
    interval = expected.confidence_interval(0.95)
    assert found.t_test_p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.mean == pytest.approx((AFTER - BEFORE).mean())


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_a_permutation_test_of_few_queries_is_exact(count):
    before, after = BEFORE[:count], AFTER[:count]
    expected = (
        stats.permutation_test((after - before,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        if count > 1
        else 1.0
    )
    assert compare(before, after).permutation_p == pytest.approx(expected)


def test_a_permutation_test_of_many_queries_is_near_the_t_test_and_always_the_same():
    found = compare(BEFORE, AFTER)
    assert found.permutation_p == pytest.approx(found.t_test_p, abs=0.01)
    assert compare(BEFORE, AFTER) == found


def test_a_difference_without_doubt_is_never_quite_zero():
    found = compare(np.zeros(100), np.ones(100))
    assert found.permutation_p == pytest.approx(1 / 10_001)
    assert (found.t_test_p, found.low, found.high) == (0, 1, 1)


def test_equal_runs_differ_by_nothing():
    found = compare([0.5, 1, 0], [0.5, 1, 0])
    assert (found.mean, found.low, found.high, found.t_test_p, found.permutation_p) == (0, 0, 0, 1, 1)
    assert (found.wins, found.losses, found.ties) == (0, 0, 3)


def test_wins_losses_and_ties_are_counted():
    found = compare([0, 0.5, 1, 0.3], [1, 0.5, 0, 0.3 + 1e-12])
    assert (found.wins, found.losses, found.ties) == (1, 1, 2)


def test_one_query_tells_nothing():
    found = compare([0], [1])
    assert (found.low, found.high, found.t_test_p, found.permutation_p) == (None, None, None, 1)
