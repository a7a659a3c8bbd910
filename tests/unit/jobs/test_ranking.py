import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.jobs.stages import pair_texts, rank
from rerank_cli.records import Candidate, Position, Ranking, Rejection, Request, Shape

logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30)


def request(count, **fields):
    return Request("q", tuple(Candidate(str(i), str(i)) for i in range(count)), Position("in", 1), **fields)


@given(logits)
def test_best_first_and_ties_in_input_order(values):
    order = rank(request(len(values)), np.array(values, np.float32), 1, None).order
    assert list(order) == sorted(range(len(values)), key=lambda i: (-values[i], i))


def test_the_order_is_the_logits_where_sigmoids_tie():
    assert rank(request(3), np.array([40, 42, 41], np.float32), 1, None).order == [1, 2, 0]


def test_top_n_of_the_record_wins_over_the_flag():
    values = np.array([1, 2, 3], np.float32)
    assert rank(request(3, top_n=1), values, 1, 2).order == [2]
    assert rank(request(3), values, 1, 2).order == [2, 1]
    assert rank(request(3), values, 1, None).order == [2, 1, 0]


def test_score_requests_are_answered_in_input_order():
    found = rank(request(3, shape=Shape.SCORE), np.array([1, 3, 2], np.float32), 1, 1)
    assert list(found.order) == [0, 1, 2]


def test_a_score_that_is_no_number_rejects_the_request():
    found = rank(request(2, id="a"), np.array([1, np.nan], np.float32), 1, None)
    assert isinstance(found, Rejection)
    assert (found.code, found.id) == ("non_finite_score", "a")


def test_logits_keep_their_float32_values():
    found = rank(request(1), np.array([0.1], np.float32), 1, None)
    assert isinstance(found, Ranking)
    assert np.float32(found.logits[0]) == np.float32(0.1)


def test_an_instruction_goes_with_each_pair_of_its_record():
    texts = pair_texts([request(2, instruction="Find: "), request(1, max_tokens_per_doc=9)])
    assert list(texts.queries) == ["q", "q", "q"]
    assert list(texts.instructions) == ["Find: ", "Find: ", None]
    assert list(texts.caps) == [0, 0, 9]
