"""gte-multilingual-reranker and jina-reranker-v2 as published: a forward pass over their tensors written out here."""

import json
import shutil

import numpy as np
import pytest
import torch
from hard import PAIRS, expect, scored
from safetensors.torch import load_file, save_file
from tiny import PARITY
from torch.nn.functional import gelu, layer_norm
from transformers import PreTrainedTokenizerFast

from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError
from rerank_cli.models.trainable import TrainedPart
from rerank_cli.training.setup import open_model
from rerank_cli.training.tokens import Lengths

WIDTH, INNER, LAYERS, HEADS, VOCABULARY = 48, 96, 3, 4, 3000
SIZE, EPS = WIDTH // HEADS, 1e-5
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER,
         "vocab_size": VOCABULARY, "hidden_act": "gelu", "layer_norm_eps": EPS, "pad_token_id": 1,
         "type_vocab_size": 1, "id2label": {"0": "LABEL_0"}, "torch_dtype": "float32"}  # fmt: skip
NEW = SIZES | {
    "model_type": "new", "architectures": ["NewForSequenceClassification"], "max_position_embeddings": 1024,
    "auto_map": {"AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig"}, "position_embedding_type": "rope",
    "rope_theta": 2000.0, "rope_scaling": {"type": "ntk", "factor": 8.0}, "layer_norm_type": "layer_norm",
    "logn_attention_scale": False, "logn_attention_clip1": False, "pack_qkv": True, "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}  # fmt: skip
FLASH = SIZES | {
    "architectures": ["XLMRobertaForSequenceClassification"], "max_position_embeddings": 514,
    "auto_map": {"AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig"}, "use_flash_attn": True,
    "position_embedding_type": "absolute", "lora_adaptations": None, "emb_pooler": None,
}  # fmt: skip


def shapes(kind):
    if kind == "new":
        base, norm = "new.", ("attn_ln", "mlp_ln")
        found = {"new.embeddings.LayerNorm.weight": WIDTH, "new.embeddings.LayerNorm.bias": WIDTH}
        linear = {"attention.qkv_proj": (3 * WIDTH, WIDTH), "attention.o_proj": (WIDTH, WIDTH),
                  "mlp.up_gate_proj": (2 * INNER, WIDTH), "mlp.down_proj": (WIDTH, INNER)}  # fmt: skip
        layer, heads = "new.encoder.layer.", {"new.pooler.dense": (WIDTH, WIDTH), "classifier": (1, WIDTH)}
    else:
        base, norm = "roberta.", ("norm1", "norm2")
        found = {"roberta.emb_ln.weight": WIDTH, "roberta.emb_ln.bias": WIDTH,
                 "roberta.embeddings.position_embeddings.weight": (514, WIDTH)}  # fmt: skip
        linear = {"mixer.Wqkv": (3 * WIDTH, WIDTH), "mixer.out_proj": (WIDTH, WIDTH), "mlp.fc1": (INNER, WIDTH),
                  "mlp.fc2": (WIDTH, INNER)}  # fmt: skip
        layer = "roberta.encoder.layers."
        heads = {"classifier.dense": (WIDTH, WIDTH), "classifier.out_proj": (1, WIDTH)}
    found |= {f"{base}embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
              f"{base}embeddings.token_type_embeddings.weight": (1, WIDTH)}  # fmt: skip
    named = heads | {f"{layer}{n}.{name}": shape for n in range(LAYERS) for name, shape in linear.items()}
    for name, shape in named.items():
        found[f"{name}.weight"] = shape
        if "up_gate" not in name:
            found[f"{name}.bias"] = shape[0]
    for number in range(LAYERS):
        found |= {f"{layer}{number}.{name}.{part}": WIDTH for name in norm for part in ("weight", "bias")}
    return found


def written(folder, kind):
    folder.mkdir()
    torch.manual_seed(8)
    weights = {}
    for name, shape in shapes(kind).items():
        is_norm = name.endswith("weight") and isinstance(shape, int)
        weights[name] = torch.randn(shape) * (0.1 if isinstance(shape, int) else 0.2) + is_norm
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(NEW if kind == "new" else FLASH))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PARITY / "xlm-roberta" / file, folder)
    return folder


@pytest.fixture(scope="module", params=["new", "flash"])
def published(request, tmp_path_factory):
    return request.param, written(tmp_path_factory.mktemp("published") / request.param, request.param)


def turned(states, config):
    """Rotary positions over [T, heads, size], with the fixed scaling of positions of kexue.fm/archives/9706."""
    scaling = config["rope_scaling"]
    factor = scaling["factor"] if scaling else 1.0
    steps = torch.arange(0, SIZE, 2, dtype=torch.float64) / SIZE
    frequencies = (config["rope_theta"] * factor) ** -steps / factor ** (2 / SIZE)
    angles = torch.arange(len(states), dtype=torch.float64)[:, None] * frequencies
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    left, right = states.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def attention(states, qkv, out, config):
    query, key, value = (part.view(len(states), HEADS, SIZE) for part in qkv(states).chunk(3, dim=-1))
    if config.get("position_embedding_type") == "rope":
        query, key = turned(query, config), turned(key, config)
    shares = (torch.einsum("qhd,khd->hqk", query, key) / SIZE**0.5).softmax(-1)
    return out(torch.einsum("hqk,khd->qhd", shares, value).flatten(1))


def score(weights, ids, config):
    """Post-norm blocks, then a tanh layer and one output on the first token."""

    def linear(name):
        return lambda states: states @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def norm(states, name):
        return layer_norm(states, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], EPS)

    new = config.get("model_type") == "new"
    base = "new." if new else "roberta."
    states = weights[f"{base}embeddings.word_embeddings.weight"][ids]
    states = states + weights[f"{base}embeddings.token_type_embeddings.weight"][0]
    if not new:
        states = states + weights["roberta.embeddings.position_embeddings.weight"][2 : 2 + len(ids)]
    states = norm(states, "new.embeddings.LayerNorm" if new else "roberta.emb_ln")
    for number in range(LAYERS):
        layer = f"new.encoder.layer.{number}." if new else f"roberta.encoder.layers.{number}."
        names = ("attention.qkv_proj", "attention.o_proj") if new else ("mixer.Wqkv", "mixer.out_proj")
        found = attention(states, *(linear(layer + name) for name in names), config)
        states = norm(states + found, layer + ("attn_ln" if new else "norm1"))
        if new:
            up, gate = linear(f"{layer}mlp.up_gate_proj")(states).chunk(2, dim=-1)
            found = linear(f"{layer}mlp.down_proj")(up * gelu(gate))
        else:
            found = linear(f"{layer}mlp.fc2")(gelu(linear(f"{layer}mlp.fc1")(states)))
        states = norm(states + found, layer + ("mlp_ln" if new else "norm2"))
    dense, last = ("new.pooler.dense", "classifier") if new else ("classifier.dense", "classifier.out_proj")
    return linear(last)(linear(dense)(states[0]).tanh()).item()


def reference(folder, pairs):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.double() for name, value in load_file(folder / "model.safetensors").items()}
    ids = [tokenizer([query], [passage], truncation="only_second", max_length=512)["input_ids"][0]
           for query, passage in pairs]  # fmt: skip
    return ids, [score(weights, read, config) for read in ids]


def test_ids_and_scores_are_those_of_the_reference(published):
    _, folder = published
    found = scored(folder)
    assert found.session.facts.family == "encoder"
    assert found.session.facts.packed
    expect(found, *reference(folder, PAIRS))


def altered(folder, tmp_path, weights=(), **changes):
    copy = tmp_path / "altered"
    shutil.copytree(folder, copy)
    config = json.loads((folder / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(config))
    if weights:
        save_file(load_file(folder / "model.safetensors") | weights, copy / "model.safetensors", {"format": "pt"})
    return copy


def test_plain_rotary_positions(tmp_path):
    folder = altered(written(tmp_path / "new", "new"), tmp_path, rope_scaling=None)
    expect(scored(folder, PAIRS[::9]), *reference(folder, PAIRS[::9]), PAIRS[::9])


REFUSED = {
    "new": (
        {"position_embedding_type": "absolute"}, {"layer_norm_type": "rms_norm"}, {"logn_attention_scale": True},
        {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}}, {"rope_scaling": {"type": "yarn"}},
        {"rope_scaling": {"type": "ntk"}}, {"rope_scaling": "much"},
    ),
    "flash": (
        {"position_embedding_type": "rotary"}, {"lora_adaptations": ["a"]}, {"hidden_act": "relu"},
        {"emb_pooler": "mean"},
    ),
}  # fmt: skip


def refuse(message, folder):
    with pytest.raises(ModelError, match=message) as caught:
        scored(folder, PAIRS[:2])
    assert "\n" not in str(caught.value)


def test_settings_that_the_stock_type_does_not_have_are_refused(published, tmp_path):
    kind, folder = published
    for number, changes in enumerate(REFUSED[kind]):
        (tmp_path / str(number)).mkdir()
        refuse(next(iter(changes)), altered(folder, tmp_path / str(number), **changes))


def test_a_tensor_without_a_place_is_refused(published, tmp_path):
    _, folder = published
    extra = {"encoder.layer.0.lora_A": torch.zeros(2, WIDTH)}
    refuse("1 tensors have no place in the stock class", altered(folder, tmp_path, extra))


def test_a_tensor_that_is_missing_is_refused(published, tmp_path):
    kind, folder = published
    copy = altered(folder, tmp_path)
    weights = load_file(copy / "model.safetensors")
    del weights["new.encoder.layer.1.attn_ln.bias" if kind == "new" else "roberta.encoder.layers.1.norm1.bias"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refuse("weights lack 1 tensors", copy)


def test_unequal_parts_are_refused(tmp_path):
    folder = written(tmp_path / "flash", "flash")
    extra = {"roberta.encoder.layers.0.mixer.Wqkv.bias": torch.zeros(3 * WIDTH - 1)}
    refuse("no fusion of 3 equal parts", altered(folder, tmp_path, extra))


def test_training_is_refused(published):
    _, folder = published
    with pytest.raises(ModelError, match="is scored but not trained"):
        open_model(ModelOptions(str(folder), device="cpu"), TrainedPart(), Lengths())


def test_stored_halves_score_nearly_the_same(published, tmp_path):
    _, folder = published
    halves = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    copy = altered(folder, tmp_path, halves, torch_dtype="bfloat16")
    assert np.abs(scored(copy, PAIRS[:12]).scores - scored(folder, PAIRS[:12]).scores).max() < 0.1
