import random

import numpy as np
import pytest
from fakes import FakeModel, logit, reader

from rerank_cli.engine import scorer
from rerank_cli.engine.contract import StopRequested
from rerank_cli.engine.rows.prepare import PairTexts, prepare
from rerank_cli.engine.scorer import Scorer
from rerank_cli.errors import ModelError
from rerank_cli.models.prompts.pairs import Limits

LIMITS = Limits(64, 48, 61)


def texts(count=40, seed=0):
    rng = random.Random(seed)

    def words(most):
        return " ".join(f"w{rng.randrange(500)}" for _ in range(rng.randint(1, most)))

    queries = [words(5) for _ in range(4)]
    return PairTexts([rng.choice(queries) for _ in range(count)], [words(40) for _ in range(count)], [0] * count)


def expected(pairs):
    word = {f"w{i}": 3 + i for i in range(500)}
    found = []
    for query, passage in zip(pairs.queries, pairs.passages, strict=True):
        q, p = ([word[w] for w in text.split()] for text in (query, passage))
        found.append(logit(np.array([1, *q, 2, *p, 2])))
    return found


def prepared(pairs, budget=128, limits=LIMITS):
    return prepare(pairs, reader(limits), budget)


def test_scores_come_back_in_the_order_of_the_pairs():
    pairs = texts()
    assert Scorer(FakeModel()).score(prepared(pairs)).tolist() == expected(pairs)


def test_equal_pairs_are_scored_once():
    pairs = PairTexts(["w1"] * 6, ["w2", "w3", "w2", "w2", "w3", "w4"], [0] * 6)
    ready = prepared(pairs)
    model = FakeModel()
    assert Scorer(model).score(ready).tolist() == expected(pairs)
    assert ready.distinct_pairs == 3
    assert sum(model.sizes) == 3 * 5


def test_the_same_text_under_another_cap_is_another_pair():
    pairs = PairTexts(["w1", "w1"], ["w2 w3 w4"] * 2, [0, 2])
    ready = prepared(pairs)
    assert ready.distinct_pairs == 2
    assert ready.truncated.tolist() == [False, True]
    assert ready.tokens.tolist() == [7, 6]


def test_no_pairs_give_no_scores():
    assert Scorer(FakeModel()).score(prepared(PairTexts([], [], []))).tolist() == []


def test_out_of_memory_splits_the_row_and_lowers_the_budget_for_good():
    pairs, model = texts(), FakeModel(capacity=100)
    scorer = Scorer(model)
    ready = prepared(pairs, budget=1000)
    assert scorer.score(ready).tolist() == expected(pairs)
    splits = scorer.work.out_of_memory
    assert splits >= 1
    assert max(model.sizes) <= 100
    assert scorer.score(ready).tolist() == expected(pairs)
    assert scorer.work.out_of_memory == splits


def test_a_single_pair_that_does_not_fit_is_an_error_that_says_what_to_do():
    with pytest.raises(ModelError, match=r"single pair of \d+ tokens. Fix: --max-length"):
        Scorer(FakeModel(capacity=3)).score(prepared(texts()))


def test_other_errors_of_the_device_pass_untouched():
    class Broken(FakeModel):
        def score(self, _):
            raise RuntimeError("CUDA error: device-side assert")

    with pytest.raises(RuntimeError, match="device-side assert"):
        Scorer(Broken()).score(prepared(texts()))


def test_scores_that_are_not_finite_are_computed_again_in_fp32():
    pairs = PairTexts(["w1"] * 3, ["w7 w9", "w8", "w9 w9"], [0] * 3)
    scorer = Scorer(FakeModel(nan_id=3 + 9), rescue=FakeModel)
    assert scorer.score(prepared(pairs)).tolist() == expected(pairs)
    assert scorer.work.rescued == 2


def test_a_score_that_fp32_cannot_give_either_stays_nan():
    pairs = PairTexts(["w1"] * 2, ["w7", "w9"], [0] * 2)
    scores = Scorer(FakeModel(nan_id=12), rescue=lambda: FakeModel(nan_id=12)).score(prepared(pairs))
    assert np.isnan(scores).tolist() == [False, True]


def test_a_request_to_stop_is_heard_between_rows():
    model, asked = FakeModel(), iter([False, False, True])
    with pytest.raises(StopRequested):
        Scorer(model).score(prepared(texts(), budget=64), lambda: next(asked))
    assert len(model.sizes) == 2


def test_work_counts_rows_and_padding():
    pairs = texts()
    packed, padded = Scorer(FakeModel()), Scorer(FakeModel(packed=False))
    packed.score(prepared(pairs))
    padded.score(prepare(pairs, reader(LIMITS), 128, padded=True))
    assert packed.work.tokens == packed.work.computed == padded.work.tokens
    assert padded.work.computed > padded.work.tokens


def test_scores_of_a_row_are_sent_home_at_once_and_waited_for_when_the_next_row_runs(monkeypatch):
    ready = prepared(texts())
    told = []

    class Told(FakeModel):
        def score(self, row):
            told.append("run")
            return super().score(row)

    class Slow:
        def __init__(self, scores):
            told.append("send")
            self.wait = lambda: told.append("wait") or scores.numpy()

    monkeypatch.setattr(scorer, "fetch", Slow)
    Scorer(Told()).score(ready)
    rest = ["run", "send", "wait"] * (len(ready.rows) - 1)
    assert len(ready.rows) > 2
    assert told == ["run", "send", *rest, "wait"]
