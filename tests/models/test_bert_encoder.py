"""BERT-like classifiers without transformers' classes: the bits of their scores, and what is left to those classes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from test_packed_rows import ours, pairs

from rerank_cli.choices import Quantize
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError
from rerank_cli.models.encoders.bert.encoder import BertEncoder
from rerank_cli.models.known import BERT_TYPES


@pytest.fixture
def by_transformers(monkeypatch):
    """A function: whether from now on transformers' classes are used."""

    def use():
        monkeypatch.setattr("rerank_cli.models.encoders.bert.load.shape_of", lambda _: None)

    return use


def backbone(session):
    return session._scorer.model.backbone


def changed(folder, change):
    """The folder with its weights as `change` returns them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def with_biases(weights):
    torch.manual_seed(2)
    return {
        name: value + 0.3 * torch.randn_like(value) if value.dim() == 1 else value for name, value in weights.items()
    }


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("family", BERT_TYPES)
def test_scores_have_the_bits_of_transformers_classes(altered, by_transformers, family, dtype):
    folder = changed(altered(of=family), with_biases)
    session, _, scores = ours(folder, pairs(), dtype=dtype)
    assert type(backbone(session)) is BertEncoder
    by_transformers()
    stock, _, expected = ours(folder, pairs(), dtype=dtype)
    assert isinstance(backbone(stock), tf.PreTrainedModel)
    assert scores.tobytes() == expected.tobytes()
    assert np.ptp(scores) > 0.1
    assert session.facts == stock.facts


@pytest.mark.parametrize("family", BERT_TYPES)
def test_layers_as_on_other_devices_have_the_bits_of_transformers_classes(
    altered, by_transformers, monkeypatch, family
):
    monkeypatch.setattr("rerank_cli.engine.session.replace_layers", lambda *_, **__: 0)
    folder = changed(altered(of=family), with_biases)
    _, _, scores = ours(folder, pairs())
    by_transformers()
    _, _, expected = ours(folder, pairs())
    assert scores.tobytes() == expected.tobytes()


@pytest.mark.parametrize("options", [{"quantize": Quantize.INT8}, {"quantize": Quantize.INT8, "dtype": "bf16"}])
def test_integers_have_the_bits_of_transformers_classes(altered, by_transformers, options):
    folder = changed(altered(), with_biases)
    _, _, scores = ours(folder, pairs(), **options)
    by_transformers()
    assert scores.tobytes() == ours(folder, pairs(), **options)[2].tobytes()


def test_several_labels_have_the_bits_of_transformers_classes(altered, by_transformers):
    names = {"0": "contradiction", "1": "neutral", "2": "entailment"}
    folder = altered(id2label=names, label2id={name: int(number) for number, name in names.items()})

    def three(weights):
        torch.manual_seed(3)
        return weights | {"classifier.weight": torch.randn(3, 48), "classifier.bias": torch.randn(3)}

    session, _, scores = ours(changed(folder, three), pairs())
    assert type(backbone(session)) is BertEncoder
    by_transformers()
    assert scores.tobytes() == ours(folder, pairs())[2].tobytes()


LEFT = {
    "another activation": {"hidden_act": "relu"},
    "no size": {"intermediate_size": None},
    "a decoder": {"is_decoder": True},
    "no eps": {"layer_norm_eps": None},
    "two classes": {"architectures": ["BertForSequenceClassification", "BertModel"]},
}


@pytest.mark.parametrize("changes", LEFT.values(), ids=LEFT)
def test_unusual_settings_are_left_to_transformers(altered, changes):
    folder = altered(**changes)
    path = folder / "config.json"
    path.write_text(
        json.dumps({name: value for name, value in json.loads(path.read_text()).items() if value is not None})
    )
    if "intermediate_size" in changes:  # transformers' default does not suit these weights
        with pytest.raises(ModelError, match="the weights cannot be loaded"):
            open_session(ModelOptions(str(folder), device="cpu"))
    else:
        assert isinstance(backbone(open_session(ModelOptions(str(folder), device="cpu"))), tf.PreTrainedModel)


def test_weights_in_several_files_are_left_to_transformers(altered, checkpoint):
    folder = altered()
    (folder / "model.safetensors").unlink()
    model = tf.AutoModelForSequenceClassification.from_pretrained(checkpoint("bert"))
    model.save_pretrained(folder, max_shard_size="100KB")
    assert (folder / "model.safetensors.index.json").is_file()
    session, _, scores = ours(folder, pairs())
    assert isinstance(backbone(session), tf.PreTrainedModel)
    np.testing.assert_allclose(scores, ours(checkpoint("bert"), pairs())[2], atol=1e-5)


def test_tensors_that_no_score_depends_on_are_not_read(altered, by_transformers):
    more = {
        "bert.embeddings.position_ids": torch.arange(512)[None],
        "cls.predictions.bias": torch.full((9,), torch.nan),
    }
    folder = changed(altered(), lambda weights: weights | more)
    session, _, scores = ours(folder, pairs())
    assert type(backbone(session)) is BertEncoder
    by_transformers()
    assert scores.tobytes() == ours(folder, pairs())[2].tobytes()


def test_a_tensor_of_another_shape_is_refused(altered):
    name = "bert.encoder.layer.1.output.dense.weight"
    folder = changed(altered(), lambda weights: weights | {name: torch.zeros(48, 95)})
    with pytest.raises(ModelError, match="the weights cannot be loaded") as caught:
        open_session(ModelOptions(str(folder), device="cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs /proc")
def test_weights_stay_in_the_file_cache_that_all_processes_share(altered):
    folder = altered()
    session = open_session(ModelOptions(str(folder), device="cpu"))
    assert type(backbone(session)) is BertEncoder
    assert str(folder / "model.safetensors") in Path("/proc/self/maps").read_text()


REFUSED = {
    "a dropout that is no number": {"hidden_dropout_prob": "0.1"},
    "a padding token without an embedding": {"pad_token_id": 5000},
    "classes of one label": {"problem_type": "single_label_classification"},
}


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_settings_that_transformers_refuses_are_refused_before_scoring(altered, family, changes):
    with pytest.raises(ModelError) as caught:
        open_session(ModelOptions(str(altered(of=family, **changes)), device="cpu"))
    assert "\n" not in str(caught.value)


HEADS = {
    "bert": ["bert.pooler.dense.weight", "classifier.weight"],
    "xlm-roberta": ["classifier.dense.bias", "classifier.out_proj.weight"],
}


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in HEADS.items() for name in names])
def test_a_tensor_of_the_head_that_is_not_finite_is_named_as_in_the_file(altered, family, name):
    def spoilt(weights):
        weights[name].view(-1)[:2] = torch.nan
        return weights

    with pytest.raises(ModelError, match=f": {re.escape(name)} holds 2 values that are NaN"):
        open_session(ModelOptions(str(changed(altered(of=family), spoilt)), device="cpu"))


def test_transformers_is_not_imported(checkpoint):
    """It takes longer than torch, so that this is half of the time to a first score."""
    program = Path(__file__).with_name("imported.py")
    command = [sys.executable, program, "score", "what is a panda?", "a bear", "-m", checkpoint("xlm-roberta")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.match(r'\{"index":0,"relevance_score":', done.stdout)
    assert not {"transformers", "torch._dynamo", "scipy", "sympy"}.intersection(done.stderr.split())
    assert "torch" in done.stderr.split()
