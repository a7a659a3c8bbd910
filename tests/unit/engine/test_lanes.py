import threading

import pytest
import torch
from fakes import FakeModel
from test_scorer import expected, prepared, texts

from rerank_cli.engine.contract import StopRequested
from rerank_cli.engine.pending import RowWorkers, is_thread_safe
from rerank_cli.engine.scorer import Scorer


class Threaded(FakeModel):
    """Notes which threads score, and with how many threads of torch's own."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def score(self, row):
        self.seen.add((threading.current_thread().name, torch.get_num_threads()))
        return super().score(row)


def test_scores_of_rows_side_by_side_come_back_in_the_order_of_the_pairs():
    pairs = texts(count=200)
    scorer = Scorer(FakeModel(), workers=RowWorkers(3))
    assert scorer.score(prepared(pairs)).tolist() == expected(pairs)
    assert scorer.work.tokens == sum(row.row.tokens for row in prepared(pairs).rows)
    assert scorer.work.rows == len(prepared(pairs).rows)


def test_a_lane_has_one_thread_of_torchs_own():
    model = Threaded()
    Scorer(model, workers=RowWorkers(2)).score(prepared(texts(count=200)))
    assert {count for _, count in model.seen} == {1}
    assert {name.partition("_")[0] for name, _ in model.seen} == {"row-worker"}


def test_what_a_row_raises_ends_the_scoring():
    class Broken(FakeModel):
        def score(self, _):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Scorer(Broken(), workers=RowWorkers(2)).score(prepared(texts()))


def test_a_stop_lets_begun_rows_end_and_takes_back_the_others():
    class Held(FakeModel):
        begun, go = threading.Event(), threading.Event()

        def score(self, row):
            self.begun.set()
            assert self.go.wait(10)
            return super().score(row)

    class Notes:
        rows = 0

        def known(self, _):
            return None

        def done(self, *_):
            self.rows += 1

    model, notes, asked = Held(), Notes(), iter([False] * 2 + [True] * 9)

    def should_stop():
        stop = next(asked)
        if stop:
            assert model.begun.wait(10)
            model.go.set()
        return stop

    ready = prepared(texts(), budget=64)
    assert len(ready.rows) > 2
    with pytest.raises(StopRequested):
        Scorer(model, workers=RowWorkers(1)).score(ready, should_stop, notes)
    assert 1 <= notes.rows == len(model.sizes) <= 2


def test_a_model_whose_rotary_embedding_changes_with_the_row_is_not_run_side_by_side():
    class Rotary(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.rope_type = kind

    assert is_thread_safe(torch.nn.Sequential(Rotary("default"), Rotary({"full_attention": "llama3"})))
    assert not is_thread_safe(torch.nn.Sequential(Rotary("default"), Rotary("longrope")))
    assert not is_thread_safe(torch.nn.Sequential(Rotary({"full_attention": "dynamic"})))
