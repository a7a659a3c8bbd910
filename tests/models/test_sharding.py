"""Which layers are gathered alone, and what does not go together with a model that is divided over processes."""

from dataclasses import replace

import pytest
import torch
from test_training_step import BATCH, trainer_of
from tiny import PARITY

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.training.launcher import ShardOptions
from rerank_cli.training.processes import Processes
from rerank_cli.training.sharding import Sharding, shard


@pytest.fixture(scope="module")
def trainer():
    return trainer_of(PARITY / "bert")


def test_other_layers_than_the_models_are_refused(trainer):
    with pytest.raises(UsageError) as refused:
        shard(trainer.model, ShardOptions(layers=("BertLayer", "LlamaDecoderLayer")), Processes(0, 2))
    expected = "FSDP_TRANSFORMER_CLS_TO_WRAP LlamaDecoderLayer: no such layers (expected BertLayer)"
    assert str(refused.value) == expected


class Fixed(Processes):
    """Processes of which the second has given calls."""

    def gather(self, value):
        return [value, [(3, False), (1, True), (2, False)]]


@pytest.fixture
def sharding(trainer):
    return Sharding(Fixed(0, 2), ShardOptions(), trainer.model.device, (), ())


def test_all_processes_make_as_many_calls_as_the_one_with_most(sharding):
    assert sharding.most([]) == [(3, False), (1, True), (2, False)]
    assert sharding.most([(1, True), (4, False)]) == [(3, True), (4, True), (2, False)]
    assert sharding.most([(1, False)] * 4) == [(3, False), (1, True), (2, False), (1, False)]


def test_rows_that_fill_up_change_nothing(trainer, sharding):
    """Three parts are computed where one process alone has one, the second row by row."""

    def gradients(trainer):
        report = trainer.gradients(0, BATCH, BATCH)
        return report, [weight.grad.clone() for weight in trainer.model.trained.values()]

    alone, expected = gradients(trainer)
    filled, found = gradients(replace(trainer, sharding=sharding))
    assert (filled.loss, filled.pairs, filled.tokens, filled.parts) == (alone.loss, alone.pairs, alone.tokens, 1)
    assert torch.equal(filled.scores, alone.scores)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)
    nothing = replace(trainer, sharding=sharding).gradients(0, [], BATCH)
    assert (nothing.loss, nothing.gradient_norm, nothing.pairs) == (0.0, 0.0, 0)


def test_running_out_of_memory_ends_the_run(trainer, sharding, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Sharding, "most", fail)
    with pytest.raises(ModelError, match=r"out of memory with activations of .* --recompute, a smaller --batch-tokens"):
        replace(trainer, sharding=sharding).gradients(0, BATCH, BATCH)
