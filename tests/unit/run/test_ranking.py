import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.engine.results import PairScores
from rerank_cli.records import Candidate, Position, Ranking, Rejection, Request, Shape
from rerank_cli.run.stages import Scored, pair_texts, rank

logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30)


def request(count, **fields):
    return Request("q", tuple(Candidate(str(i), str(i)) for i in range(count)), Position("in", 1), **fields)


def ranked(given, values, top_n):
    count = len(values)
    pairs = PairScores(np.asarray(values), np.ones(count, np.int64), np.zeros(count, bool), None, 0)
    return rank(given, Scored(None, pairs), slice(0, count), top_n)


@given(logits)
def test_best_first_and_ties_in_input_order(values):
    order = ranked(request(len(values)), np.array(values, np.float32), None).order
    assert list(order) == sorted(range(len(values)), key=lambda i: (-values[i], i))


def test_the_order_is_the_logits_where_sigmoids_tie():
    assert ranked(request(3), np.array([40, 42, 41], np.float32), None).order == [1, 2, 0]


def test_top_n_of_the_record_wins_over_the_flag():
    values = np.array([1, 2, 3], np.float32)
    assert ranked(request(3, top_n=1), values, 2).order == [2]
    assert ranked(request(3), values, 2).order == [2, 1]
    assert ranked(request(3), values, None).order == [2, 1, 0]


def test_score_requests_are_answered_in_input_order():
    found = ranked(request(3, shape=Shape.SCORE), np.array([1, 3, 2], np.float32), 1)
    assert list(found.order) == [0, 1, 2]


def test_a_score_that_is_no_number_rejects_the_request():
    found = ranked(request(2, id="a"), np.array([1, np.nan], np.float32), None)
    assert isinstance(found, Rejection)
    assert (found.code, found.id) == ("non_finite_score", "a")


def test_logits_keep_their_float32_values():
    found = ranked(request(1), np.array([0.1], np.float32), None)
    assert isinstance(found, Ranking)
    assert np.float32(found.logits[0]) == np.float32(0.1)


def test_an_instruction_goes_with_each_pair_of_its_record():
    texts = pair_texts([request(2, instruction="Find: "), request(1, max_tokens_per_doc=9)])
    assert list(texts.queries) == ["q", "q", "q"]
    assert list(texts.instructions) == ["Find: ", "Find: ", None]
    assert list(texts.caps) == [0, 0, 9]


def test_the_deepest_layer_decides():
    found = ranked(request(2), np.array([[5, 1], [0, 2]], np.float32), None)
    assert found.order == [1, 0]
    assert found.logits == [1, 2]
    assert found.layers == [[5, 1], [0, 2]]


def test_a_layer_that_gives_no_number_rejects_the_request():
    assert isinstance(ranked(request(2), np.array([[np.inf, 1], [0, 2]], np.float32), None), Rejection)
