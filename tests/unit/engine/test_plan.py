import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.engine.rows.plan import plan_rows

lengths = st.lists(st.integers(1, 600), min_size=1, max_size=80).map(lambda found: np.array(found, dtype=np.int64))


@given(lengths, st.integers(1, 3000), st.booleans())
def test_every_pair_is_in_exactly_one_row(lengths, budget, padded):
    rows = plan_rows(lengths, budget, padded=padded)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))


@given(lengths, st.integers(1, 3000), st.booleans())
def test_a_row_keeps_to_the_budget_unless_it_holds_a_single_pair(lengths, budget, padded):
    for row in plan_rows(lengths, budget, padded=padded):
        cost = lengths[row].max() * len(row) if padded else lengths[row].sum()
        assert cost <= budget or len(row) == 1


@given(lengths, st.integers(1, 3000))
def test_rows_run_from_the_longest_pair_to_the_shortest(lengths, budget):
    order = lengths[np.concatenate(plan_rows(lengths, budget))]
    assert (np.diff(order) <= 0).all()


@given(lengths, st.integers(1, 3000))
def test_no_row_could_have_taken_the_next_pair_too(lengths, budget):
    rows = plan_rows(lengths, budget)
    for row, following in itertools.pairwise(rows):
        assert lengths[row].sum() + lengths[following[0]] > budget


@pytest.mark.parametrize("padded", [False, True])
def test_pairs_of_equal_length_keep_their_order(padded):
    (row,) = plan_rows(np.full(5, 7), 1000, padded=padded)
    assert row.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("padded", [False, True])
def test_no_pairs_make_no_rows(padded):
    assert plan_rows(np.array([], dtype=np.int64), 100, padded=padded) == []
