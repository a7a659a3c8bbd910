import json

import pytest
import torch
import transformers as tf
from test_packed_rows import TOLERANCE, ours, pairs, stock
from tiny import configs

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.models.encoders.cpu.fused import FusedLayer, FusedLinear
from rerank_cli.models.encoders.cpu.in_place import InPlaceLayer
from rerank_cli.models.encoders.cpu.replace import replace_layers
from rerank_cli.models.instructions import has_bf16

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16 instructions")
IN_PLACE = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def with_biases(checkpoint, family, folder):
    """The tiny checkpoint with biases that are not zero, so that one left out would show."""
    model = tf.AutoModelForSequenceClassification.from_pretrained(checkpoint(family), dtype=torch.float32)
    torch.manual_seed(2)
    for weight in model.requires_grad_(False).parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, weight.mean().item(), 0.3)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((checkpoint(family) / file).read_bytes())
    return folder


@pytest.mark.parametrize("family", IN_PLACE)
def test_blocks_worked_in_place_score_like_the_stock_model(checkpoint, tmp_path, family):
    folder = with_biases(checkpoint, family, tmp_path)
    session, prepared, scores = ours(folder, pairs())
    expected = stock(folder, prepared)
    layers = [layer for layer in session._scorer.model.backbone.modules() if isinstance(layer, InPlaceLayer)]
    assert len(layers) == 2  # of three, the last is trimmed
    assert abs(expected).max() > 100 * TOLERANCE
    assert abs(scores - expected).max() <= TOLERANCE * max(1, abs(expected).max())


@pytest.mark.parametrize("family", IN_PLACE)
def test_layers_in_bf16_are_as_near_the_exact_scores_as_the_stock_model(checkpoint, tmp_path, family, monkeypatch):
    folder = with_biases(checkpoint, family, tmp_path)
    _, _, exact = ours(folder, pairs())
    session, _, scores = ours(folder, pairs(), dtype="bf16")
    kind = FusedLayer if has_bf16() else InPlaceLayer
    assert sum(isinstance(module, kind) for module in session._scorer.model.backbone.modules()) == 2
    monkeypatch.setattr("rerank_cli.engine.session.replace_layers", lambda *_, **__: 0)
    _, _, plain = ours(folder, pairs(), dtype="bf16")
    error, usual = abs(scores - exact).mean(), abs(plain - exact).mean()
    assert (scores != plain).any()
    assert error < 1.5 * usual


@needs_bf16
def test_a_fused_linear_layer_rounds_once():
    torch.manual_seed(4)
    linear = torch.nn.Linear(48, 80).bfloat16()
    states, residual = torch.randn(33, 48).bfloat16(), torch.randn(33, 80).bfloat16()
    with torch.inference_mode():
        exact = torch.nn.functional.linear(states.double(), linear.weight.double(), linear.bias.double())
        fused = FusedLinear(linear)
        for found, expected in (
            (fused(states), exact),
            (fused.gelu(states), torch.nn.functional.gelu(exact)),
            (fused.added(states, residual), exact + residual.double()),
        ):
            assert found.dtype == torch.bfloat16
            # Half a step of bf16, and what the sum in fp32 and its own error function may differ by.
            assert ((found.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-4).all()


@needs_bf16
def test_an_activation_that_is_not_exact_gelu_is_the_stock_one(checkpoint, tmp_path, monkeypatch):
    folder = with_biases(checkpoint, "bert", tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"hidden_act": "relu"}))
    _, _, exact = ours(folder, pairs())
    session, _, scores = ours(folder, pairs(), dtype="bf16")
    assert sum(isinstance(module, FusedLayer) for module in session._scorer.model.backbone.modules()) == 2
    monkeypatch.setattr("rerank_cli.engine.session.replace_layers", lambda *_, **__: 0)
    _, _, plain = ours(folder, pairs(), dtype="bf16")
    assert abs(scores - exact).mean() < 1.5 * abs(plain - exact).mean()


def test_without_bf16_instructions_layers_are_worked_in_place(checkpoint, monkeypatch):
    monkeypatch.setattr("rerank_cli.models.encoders.cpu.replace.has_bf16", lambda: False)
    model = tf.AutoModel.from_pretrained(checkpoint("bert"), dtype=torch.bfloat16)
    assert replace_layers(model) == 3
    assert all(isinstance(layer, InPlaceLayer) for layer in model.encoder.layer)


def test_weights_are_those_of_the_stock_layers_and_not_copies(checkpoint):
    model = tf.AutoModel.from_pretrained(checkpoint("bert"))
    before = {weight.data_ptr() for weight in model.parameters()}
    assert replace_layers(model) == 3
    assert {weight.data_ptr() for weight in model.parameters()} == before


def test_models_of_another_layout_are_left_as_they_are():
    assert replace_layers(tf.AutoModel.from_config(configs()["modernbert-cls"][0])) == 0


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_scores_are_the_same_bits_whatever_the_number_of_threads(checkpoint, dtype):
    options = {"dtype": dtype, "batch_tokens": 128}
    _, prepared, _ = ours(checkpoint("bert"), pairs(), **options)
    found = []
    for threads in (1, 2, 3):
        session = open_session(ModelOptions(str(checkpoint("bert")), device="cpu", threads=threads, **options))
        found.append(session.score(prepared).tobytes())
    assert found[0] == found[1] == found[2]
