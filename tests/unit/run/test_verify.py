import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.engine.contract import ModelFacts
from rerank_cli.engine.results import PairScores
from rerank_cli.errors import ModelError
from rerank_cli.records import Candidate, Position, Rejection, Request
from rerank_cli.run.chunks import Chunk
from rerank_cli.run.stages import Scored
from rerank_cli.run.verify import Sample, Verdict, kendall_tau

HERE = Position("in.jsonl", 1)


class PlainSession:
    """Passages are numbers, and a number is its own logit: plus `off`, and once more, doubled, for each layer."""

    def __init__(self, dtype="fp32", off=0.0, layers=0, quantize="none"):
        self.facts = ModelFacts("plain", "r1", "fake", "cpu", dtype, 0, True, 512, 384, 2048, quantize=quantize)
        self.asked = None
        self._off, self._layers = off, layers

    def score_plainly(self, pairs):
        self.asked = pairs
        return logits_of(pairs.passages, self._layers) + np.float32(self._off)


def logits_of(passages, layers=0):
    values = np.array([float(passage) for passage in passages], dtype=np.float32)
    return np.stack([values * 2**layer for layer in range(layers)], axis=1) if layers else values


def request(numbers, **fields):
    return Request("q", tuple(Candidate(str(n), str(n)) for n in numbers), HERE, **fields)


def scored(*records, logits=None, layers=0):
    """A chunk of requests, whose passages are numbers, and of rejections."""
    passages = [c.text for record in records if isinstance(record, Request) for c in record.candidates]
    count = len(passages)
    chunk = Chunk(0, records, count, 0, 0, None)
    found = logits_of(passages, layers) if logits is None else np.array(logits, dtype=np.float32)
    return Scored(chunk, PairScores(found, np.ones(count, np.int64), np.zeros(count, bool), None, 0))


def cut(count, per_request, requests_a_chunk):
    """Numbers below `count` as chunks of requests."""
    requests = [request(numbers) for numbers in batched(range(count), per_request)]
    return [scored(*records) for records in batched(requests, requests_a_chunk)]


def batched(items, size):
    source = iter(items)
    return iter(lambda: tuple(itertools.islice(source, size)), ())


def drawn(size, chunks):
    """The numbers that a sample of this size holds."""
    sample, session = Sample(size), PlainSession()
    for chunk in chunks:
        sample.take(chunk)
    assert sample.verify(session, 0).pairs == len(session.asked)
    return [int(passage) for passage in session.asked.passages]


def verdict(*chunks, size=100, tolerance=None, **session):
    sample = Sample(size)
    for chunk in chunks:
        sample.take(chunk)
    return sample.verify(PlainSession(**session), tolerance)


def test_a_sample_larger_than_all_there_is_takes_all():
    assert drawn(50, cut(20, 3, 2)) == list(range(20))
    assert drawn(20, cut(20, 3, 2)) == list(range(20))


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_sample_holds_as_many_pairs_as_asked_for_and_none_twice(size):
    found = drawn(size, cut(500, 9, 4))
    assert len(set(found)) == len(found) == size
    assert set(found) <= set(range(500))


@pytest.mark.parametrize("size", [200, 1000, 4000])
def test_every_part_of_a_run_is_drawn_from_alike(size):
    tenths = np.bincount(np.array(drawn(size, cut(10_000, 10, 25))) // 1000, minlength=10)
    share = size / 10_000
    assert np.abs(tenths - 1000 * share).max() < 4 * (1000 * share * (1 - share)) ** 0.5


def test_each_pair_is_drawn_about_equally_often(monkeypatch):
    """A run draws with one seed for ever; here every run has another."""
    generator, seeds = np.random.default_rng, iter(range(1, 10_000))
    monkeypatch.setattr(np.random, "default_rng", lambda _: generator(next(seeds)))
    for size in (1, 10, 39):
        often = np.bincount(np.concatenate([drawn(size, cut(40, 3, 4)) for _ in range(300)]), minlength=40)
        share = size / 40
        assert np.abs(often - 300 * share).max() < 4 * (300 * share * (1 - share)) ** 0.5


def test_two_runs_draw_the_same_pairs():
    assert drawn(30, cut(1000, 7, 5)) == drawn(30, cut(1000, 7, 5))


@pytest.mark.parametrize(("per_request", "requests_a_chunk"), [(1, 1), (7, 1), (10, 3), (1000, 1)])
def test_the_sample_does_not_depend_on_where_chunks_end(per_request, requests_a_chunk):
    assert drawn(30, cut(1000, per_request, requests_a_chunk)) == drawn(30, cut(1000, 5, 40))


def test_rejections_between_requests_are_passed_over():
    bad = Rejection(HERE, "bad_json", "broken")
    chunks = [scored(bad), scored(bad, request([0, 1]), bad, request([2])), scored(request([3]), bad)]
    assert drawn(10, chunks) == [0, 1, 2, 3]


def test_a_pair_is_scored_again_with_the_query_and_limits_of_its_request():
    sample, session = Sample(10), PlainSession()
    sample.take(scored(request([0], instruction="Find: "), request([1, 2], max_tokens_per_doc=9)))
    sample.verify(session, None)
    pairs = session.asked
    assert (list(pairs.queries), list(pairs.passages)) == (["q"] * 3, ["0", "1", "2"])
    assert (list(pairs.caps), list(pairs.instructions)) == ([0, 9, 9], ["Find: ", None, None])


def test_a_verdict_tells_the_largest_difference_and_the_order():
    found = verdict(scored(request([1, 2, 3]), logits=[1, 2.5, 2.25]), tolerance=1)
    assert found == Verdict(3, 0.75, pytest.approx(1 / 3), 1)
    assert found.line == "3 pairs verified: worst |Δ| 0.75, Kendall τ 0.3333"


@pytest.mark.parametrize(("dtype", "limit"), [("fp32", 1e-3), ("fp16", 0.1), ("bf16", 0.5)])
def test_the_tolerance_goes_by_precision(dtype, limit):
    found = verdict(scored(request([0])), dtype=dtype, off=limit * 0.99)
    assert found.tolerance == limit
    with pytest.raises(ModelError, match=f"beyond the tolerance of {limit:g}"):
        verdict(scored(request([0])), dtype=dtype, off=limit * 1.01)


def test_a_quantized_model_has_a_tolerance_of_its_own():
    found = verdict(scored(request([0, 3])), dtype="bf16", quantize="fp8", off=1.5)
    assert (found.tolerance, found.kendall_tau) == (2, 1)
    with pytest.raises(ModelError, match=r"beyond the tolerance of 2\. Fix: --restart --quantize none"):
        verdict(scored(request([0, 3])), dtype="bf16", quantize="fp8", off=2.5)


def test_a_tolerance_of_ones_own_wins_and_may_be_met_exactly():
    assert verdict(scored(request([0, 1])), off=0.5, tolerance=0.5).worst == 0.5
    assert verdict(scored(request([0, 1])), tolerance=0).worst == 0
    message = r"2 pairs verified: worst \|Δ\| 0.5, .*beyond the tolerance of 0.25\. Fix: --restart --dtype fp32"
    with pytest.raises(ModelError, match=message):
        verdict(scored(request([0, 1])), dtype="bf16", off=0.5, tolerance=0.25)


def test_every_layer_is_compared_and_the_deepest_decides_the_order():
    pair = request([1, 2])
    good = verdict(scored(pair, logits=[[1, 4], [2, 2]]), layers=2, tolerance=2)
    assert (good.worst, good.kendall_tau) == (2, -1)
    shallow = verdict(scored(pair, logits=[[5, 2], [2, 4]]), layers=2, tolerance=9)
    assert (shallow.worst, shallow.kendall_tau) == (4, 1)
    with pytest.raises(ModelError, match=r"worst \|Δ\| 4"):
        verdict(scored(pair, logits=[[5, 2], [2, 4]]), layers=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layers", [0, 2])
def test_a_score_of_ours_that_is_no_number_is_not_drawn(value, layers):
    logits = logits_of([0, 1, 2], layers)
    logits[1] = value
    assert verdict(scored(request([0, 1, 2]), logits=logits), layers=layers).pairs == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layers", [0, 2])
def test_a_plain_score_that_is_no_number_fails_whatever_the_tolerance(value, layers):
    with pytest.raises(ModelError, match="are not finite"):
        verdict(scored(request([0, 1]), layers=layers), layers=layers, off=value, tolerance=1e9)


@pytest.mark.parametrize("chunks", [[], [scored()], [scored(Rejection(HERE, "bad_json", "broken"))]])
def test_a_run_that_scored_nothing_is_told_that_it_cannot_verify(chunks):
    with pytest.raises(ModelError, match="no score to verify"):
        verdict(*chunks)


@pytest.mark.parametrize(
    ("left", "right", "tau"),
    [
        ([1, 2, 3], [4, 5, 6], 1),
        ([1, 2, 3], [3, 2, 1], -1),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),  # five pairs agree, one does not
        ([1, 1, 2], [1, 2, 3], 2 / 6**0.5),  # two pairs agree, one is tied on the left alone
        ([1, 1, 2], [5, 5, 9], 1),  # tied in both
        ([1, 1, 2, 2], [1, 2, 1, 2], 0),  # pairs 0-3 and 1-2 cancel each other, four are tied in one
        ([1, 2, 2, 3], [1, 3, 2, 2], 2 / 5),  # three agree, one does not, one is tied on either side
        ([7, 7, 7], [1, 2, 3], 1),  # nothing untied on the left
        ([5], [2], 1),
        ([], [], 1),
    ],
)
def test_kendall_tau_is_as_worked_by_hand(left, right, tau):
    assert kendall_tau(left, right) == pytest.approx(tau)


orders = st.lists(st.integers(-5, 5), min_size=2, max_size=12)
untied = st.lists(st.integers(-99, 99), min_size=2, max_size=12, unique=True)
two_orders = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=12)


@given(two_orders)
def test_turning_one_order_round_turns_the_sign(pairs):
    left, right = zip(*pairs, strict=True)
    there_is_an_order = len(set(left)) > 1 and len(set(right)) > 1
    assert -1 <= kendall_tau(left, right) <= 1 + 1e-12
    if there_is_an_order:
        assert kendall_tau(left, right) == pytest.approx(-kendall_tau(left, [-value for value in right]))


@given(orders)
def test_orders_that_rise_together_agree_wholly(values):
    assert kendall_tau(values, [3 * value + 2 for value in values]) == pytest.approx(1)
    assert kendall_tau(values, np.exp(values)) == pytest.approx(1)


@given(untied)
def test_orders_without_ties_that_fall_together_disagree_wholly(values):
    assert kendall_tau(values, [-value for value in values]) == pytest.approx(-1)


@given(two_orders, st.randoms(use_true_random=False))
def test_neither_the_sides_nor_the_sequence_nor_the_scale_matters(pairs, random):
    tau = kendall_tau(*zip(*pairs, strict=True))
    assert kendall_tau(*reversed(list(zip(*pairs, strict=True)))) == pytest.approx(tau)
    random.shuffle(pairs)
    left, right = zip(*pairs, strict=True)
    assert kendall_tau(np.exp(left), np.array(right) * 8) == pytest.approx(tau)
