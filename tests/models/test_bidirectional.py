"""Llama without the causal mask: ids by transformers' tokenizer, scores by a forward pass written out here."""

import json

import numpy as np
import pytest
import torch
from hard import PAIRS, expect, scored
from safetensors.torch import load_file, save_file
from test_prompts import TEXT
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.inspection.pair import _score_at
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.trainable import TrainedPart
from rerank_cli.training.setup import open_model
from rerank_cli.training.tokens import Lengths

LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
WIDTH, INNER, LAYERS, HEADS, SHARED = 48, 80, 3, 4, 2
SIZE = WIDTH // HEADS
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}  # fmt: skip
CONFIG = {
    "model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"],
    "auto_map": {"AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig"}, "hidden_size": WIDTH,
    "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": SHARED, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 5000.0,
    "rope_scaling": ROPE, "pooling": "avg", "temperature": 0.5, "id2label": {"0": "LABEL_0"}, "bos_token_id": 0,
    "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def nemotron(tmp_path_factory):
    """A tiny random checkpoint as it is published, with a small tokenizer of Llama 3's make."""
    folder = tmp_path_factory.mktemp("nemotron")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    made.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT, "question: \n \n passage:\n\n \n\n" * 50], trainer)
    made.post_processor = processors.TemplateProcessing("<|begin_of_text|> $A", special_tokens=[(special[0], 0)])
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token=special[0], pad_token=special[1]).save_pretrained(folder)
    config = CONFIG | {"vocab_size": made.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(6)
    wide, narrow = HEADS * SIZE, SHARED * SIZE
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], WIDTH), "model.norm.weight": (WIDTH,),
              "score.weight": (1, WIDTH)}  # fmt: skip
    for number in range(LAYERS):
        layer = f"model.layers.{number}."
        shapes |= {
            f"{layer}input_layernorm.weight": (WIDTH,), f"{layer}post_attention_layernorm.weight": (WIDTH,),
            f"{layer}self_attn.q_proj.weight": (wide, WIDTH), f"{layer}self_attn.k_proj.weight": (narrow, WIDTH),
            f"{layer}self_attn.v_proj.weight": (narrow, WIDTH), f"{layer}self_attn.o_proj.weight": (WIDTH, wide),
            f"{layer}mlp.gate_proj.weight": (INNER, WIDTH), f"{layer}mlp.up_proj.weight": (INNER, WIDTH),
            f"{layer}mlp.down_proj.weight": (WIDTH, INNER),
        }  # fmt: skip
    weights = {
        name: torch.randn(shape) * 0.2 if len(shape) == 2 else 1 + torch.randn(shape) * 0.1
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def frequencies():
    """Llama 3's scaled rotary frequencies: slow ones divided by the factor, those between interpolated."""
    plain = [CONFIG["rope_theta"] ** (-2 * number / SIZE) for number in range(SIZE // 2)]
    factor, low, high = ROPE["factor"], ROPE["low_freq_factor"], ROPE["high_freq_factor"]
    before = ROPE["original_max_position_embeddings"]
    found = []
    for frequency in plain:
        turns = before * frequency / (2 * np.pi)
        if turns < low:
            found.append(frequency / factor)
        elif turns > high:
            found.append(frequency)
        else:
            share = (turns - low) / (high - low)
            found.append((1 - share) * frequency / factor + share * frequency)
    return torch.tensor(found, dtype=torch.float64)


def normed(states, weight):
    return weight * states / (states.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]).sqrt()


def turned(states):
    """Rotary positions over [T, heads, size]."""
    angles = torch.arange(len(states), dtype=torch.float64)[:, None] * frequencies()
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    left, right = states.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def score(weights, ids, temperature):
    """Each token attends to all; the mean of the last states, times the head, divided by the temperature."""
    states = weights["model.embed_tokens.weight"][ids]
    for number in range(LAYERS):
        part = {name.removeprefix(f"model.layers.{number}."): value for name, value in weights.items()}
        seen = normed(states, part["input_layernorm.weight"])
        query, key, value = (
            (seen @ part[f"self_attn.{name}_proj.weight"].T).view(len(ids), -1, SIZE) for name in "qkv"
        )
        query, key = turned(query), turned(key)
        key, value = (states.repeat_interleave(HEADS // SHARED, dim=1) for states in (key, value))
        shares = (torch.einsum("qhd,khd->hqk", query, key) / SIZE**0.5).softmax(-1)
        context = torch.einsum("hqk,khd->qhd", shares, value).flatten(1)
        states = states + context @ part["self_attn.o_proj.weight"].T
        seen = normed(states, part["post_attention_layernorm.weight"])
        gate, up = seen @ part["mlp.gate_proj.weight"].T, seen @ part["mlp.up_proj.weight"].T
        states = states + (gate * gate.sigmoid() * up) @ part["mlp.down_proj.weight"].T
    mean = normed(states, weights["model.norm.weight"]).mean(dim=0)
    return (weights["score.weight"][0] @ mean).item() / temperature


def reference(folder, pairs):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.double() for name, value in load_file(folder / "model.safetensors").items()}
    ids = [tokenizer(f"question:{query} \n \n passage:{passage}", truncation=True, max_length=512)["input_ids"]
           for query, passage in pairs]  # fmt: skip
    return ids, [score(weights, read, config["temperature"]) for read in ids]


def test_ids_and_scores_are_those_of_the_reference(nemotron):
    found = scored(nemotron)
    assert found.session.facts.family == "decoder-mean"
    assert found.session.facts.packed
    expect(found, *reference(nemotron, PAIRS))


def altered(nemotron, tmp_path, weights=None, **changes):
    folder = tmp_path / "altered"
    folder.mkdir()
    for path in nemotron.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        save_file(load_file(nemotron / "model.safetensors") | weights, folder / "model.safetensors")
    return folder


def test_without_scaled_positions_and_temperature(nemotron, tmp_path):
    folder = altered(nemotron, tmp_path, temperature=1.0, rope_scaling=None)
    plain = PAIRS[:5]
    changed = scored(folder, plain).scores
    assert np.abs(changed - scored(nemotron, plain).scores / 2).max() > 1e-3  # the positions matter
    half = altered(nemotron, tmp_path / "altered", temperature=1.0)
    assert np.abs(scored(half, plain).scores - scored(nemotron, plain).scores / 2).max() <= 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "last"}, "pooling 'last' is not supported"),
        ({"pooling": "cls"}, "pooling 'cls' is not supported"),
        ({"is_causal": True}, r"is_causal True \(expected false\)"),
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": "warm"}, "temperature 'warm'"),
        ({"id2label": {"0": "no", "1": "yes"}}, "with 2 labels"),
        ({"architectures": ["LlamaBidirectionalModel"]}, "without a head"),
        ({"model_type": "llama", "is_causal": False}, "without the causal mask is not supported"),
        ({"num_hidden_layers": LAYERS - 1}, "layer 2"),
        ({"num_hidden_layers": LAYERS + 1}, "weights lack"),
    ],
)
def test_other_configurations_are_refused(nemotron, tmp_path, changes, message):
    with pytest.raises(ModelError, match=message) as caught:
        scored(altered(nemotron, tmp_path, **changes), PAIRS[:2])
    assert "\n" not in str(caught.value)


def test_options_and_training_are_refused(nemotron):
    with pytest.raises(UsageError, match=r"--query-instruction: .* has no such option"):
        open_tokenizer(ModelOptions(str(nemotron), family=FamilyOptions(query_instruction="find: ")))
    with pytest.raises(ModelError, match="llama_bidirec is scored but not trained"):
        open_model(ModelOptions(str(nemotron), device="cpu"), TrainedPart(), Lengths())


def test_a_cut_query_keeps_the_words_after_it(nemotron):
    pairs = [("panda " * 900, "bear"), ("panda", "bear " * 900)]
    found = scored(nemotron, pairs, max_length=64)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(nemotron)
    end = tokenizer(" \n \n passage:bear", add_special_tokens=False)["input_ids"]
    assert found.ids[0][-len(end) :] == end
    assert all(len(ids) <= 64 for ids in found.ids)
    assert _score_at(open_tokenizer(ModelOptions(str(nemotron))), 9) is None
