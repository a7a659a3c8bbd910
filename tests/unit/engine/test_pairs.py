import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.models.prompts.pairs import Limits, fit_lengths

counts = st.integers(0, 1200)


def fit(query, passage, max_length=512, query_max=None, specials=4):
    limits = Limits(max_length, max_length * 3 // 4 if query_max is None else query_max, max_length - specials)
    kept = fit_lengths(np.array([query]), np.array([passage]), limits)
    return int(kept.query[0]), int(kept.passage[0])


def reference(query, passage, max_length, query_max, specials):
    """FlagEmbedding's rule; None for the query means the corner that it leaves too long."""
    query, passage = min(query, query_max), min(passage, max_length)
    over = query + passage + specials - max_length
    if over > 0 and passage > over:
        passage -= over
    return (query, passage) if query + passage + specials <= max_length else None


@given(counts, counts, st.integers(8, 600), st.integers(1, 600))
def test_outside_the_corner_the_rule_is_the_references(query, passage, max_length, query_max):
    query_max = min(query_max, max_length)
    expected = reference(query, passage, max_length, query_max, 4)
    if expected:
        assert fit(query, passage, max_length, query_max) == expected


@given(counts, counts, st.integers(8, 600), st.integers(1, 600))
def test_no_pair_is_ever_longer_than_the_limit(query, passage, max_length, query_max):
    kept_query, kept_passage = fit(query, passage, max_length, min(query_max, max_length))
    assert kept_query + kept_passage + 4 <= max_length
    assert 0 <= kept_query <= query
    assert 0 <= kept_passage <= passage


def test_a_long_query_leaves_124_passage_tokens_by_default():
    assert fit(1000, 1000) == (384, 124)


def test_a_query_that_fills_the_limit_is_clipped_to_leave_the_passage_a_quarter():
    assert fit(60, 100, max_length=64, query_max=60) == (45, 15)


def test_a_short_passage_keeps_all_of_itself_beside_an_overlong_query():
    assert fit(600, 3, max_length=64, query_max=64) == (57, 3)


def test_a_pair_that_fits_is_left_alone():
    assert fit(10, 20) == (10, 20)
    assert fit(0, 0) == (0, 0)
