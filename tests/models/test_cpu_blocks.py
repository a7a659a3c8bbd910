import pytest
import torch
import transformers as tf
from test_packed_rows import TOLERANCE, ours, pairs, stock
from tiny import configs

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.models.encoders.cpu_blocks import InPlaceLayer, work_in_place

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
def test_blocks_in_bf16_are_as_near_the_exact_scores_as_the_stock_model(checkpoint, tmp_path, family, monkeypatch):
    folder = with_biases(checkpoint, family, tmp_path)
    _, _, exact = ours(folder, pairs())
    _, _, scores = ours(folder, pairs(), dtype="bf16")
    monkeypatch.setattr("rerank_cli.engine.session.work_in_place", lambda *_, **__: 0)
    _, _, plain = ours(folder, pairs(), dtype="bf16")
    error, usual = abs(scores - exact).mean(), abs(plain - exact).mean()
    assert (scores != plain).any()
    assert error < 1.5 * usual


def test_weights_are_those_of_the_stock_layers_and_not_copies(checkpoint):
    model = tf.AutoModel.from_pretrained(checkpoint("bert"))
    before = {weight.data_ptr() for weight in model.parameters()}
    assert work_in_place(model) == 3
    assert {weight.data_ptr() for weight in model.parameters()} == before


def test_models_of_another_layout_are_left_as_they_are():
    assert work_in_place(tf.AutoModel.from_config(configs()["modernbert-cls"][0])) == 0


def test_scores_are_the_same_bits_whatever_the_number_of_threads(checkpoint):
    found = []
    for threads in (1, 2, 3):
        session = open_session(ModelOptions(str(checkpoint("bert")), device="cpu", threads=threads, batch_tokens=128))
        _, prepared, _ = ours(checkpoint("bert"), pairs(), batch_tokens=128)
        found.append(session.score(prepared).tobytes())
    assert found[0] == found[1] == found[2]
