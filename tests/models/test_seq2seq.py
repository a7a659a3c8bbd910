"""monoT5 and its kin: ids by transformers' tokenizer, scores by a T5 written out here, one pair at a time."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hard import PAIRS, expect, scored
from safetensors.torch import load_file, save_file
from test_prompts import TEXT
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch.nn.functional import gelu
from transformers import PreTrainedTokenizerFast

from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.registry import half_precision
from rerank_cli.models.trainable import TrainedPart
from rerank_cli.training.setup import open_model
from rerank_cli.training.tokens import Lengths

WIDTH, INNER, LAYERS, HEADS, SIZE, BUCKETS, FAR, EPS = 48, 96, 3, 4, 10, 32, 128, 1e-6
ANSWERS = ("true", "false", "yes", "no", "sim", "não")
WORDS = "Query: Document: Relevant: " * 60


def config_of(kind, rows):
    found = {
        "model_type": "t5" if kind.startswith("t5") else "mt5", "d_model": WIDTH, "d_ff": INNER, "d_kv": SIZE,
        "num_layers": LAYERS, "num_heads": HEADS, "vocab_size": rows, "relative_attention_num_buckets": BUCKETS,
        "layer_norm_epsilon": EPS, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "architectures": ["T5ForConditionalGeneration" if kind.startswith("t5") else "MT5ForConditionalGeneration"],
        "feed_forward_proj": "relu" if kind == "t5" else "gated-gelu", "torch_dtype": "float32",
    }  # fmt: skip
    return found if kind == "t5" else found | {"tie_word_embeddings": False}


def shapes(kind, rows):
    found = {"shared.weight": (rows, WIDTH)} | ({} if kind == "t5" else {"lm_head.weight": (rows, WIDTH)})
    for stack, parts in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        found[f"{stack}.final_layer_norm.weight"] = (WIDTH,)
        found[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (BUCKETS, HEADS)
        for number in range(LAYERS):
            for place, part in enumerate(parts):
                layer = f"{stack}.block.{number}.layer.{place}."
                found |= {f"{layer}{part}.{name}.weight": (HEADS * SIZE, WIDTH) for name in "qkv"}
                found |= {f"{layer}{part}.o.weight": (WIDTH, HEADS * SIZE), f"{layer}layer_norm.weight": (WIDTH,)}
            layer = f"{stack}.block.{number}.layer.{len(parts)}."
            inner = ("wi",) if kind == "t5" else ("wi_0", "wi_1")
            found |= {f"{layer}DenseReluDense.{name}.weight": (INNER, WIDTH) for name in inner}
            found |= {f"{layer}DenseReluDense.wo.weight": (WIDTH, INNER), f"{layer}layer_norm.weight": (WIDTH,)}
    return found


def written(folder, kind):
    """A tiny random T5 (its first version, 1.1, or mT5) with a small tokenizer of its make."""
    folder.mkdir()
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator([TEXT, WORDS], trainer)
    content = json.loads(made.to_str())
    known = {piece for piece, _ in content["model"]["vocab"]}
    content["model"]["vocab"] += [(f"▁{word}", -2.0) for word in ANSWERS if f"▁{word}" not in known]
    made = Tokenizer.from_str(json.dumps(content))
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="<pad>").save_pretrained(folder)
    rows = made.get_vocab_size() + 5
    torch.manual_seed(9)
    # Products are not scaled: with wider queries, attention would choose single keys, and rounding with it.
    wide = {"q.weight": 0.05, "bias.weight": 1.0}
    weights = {
        name: 1 + torch.randn(shape) * 0.1
        if len(shape) == 1
        else torch.randn(shape) * next((scale for end, scale in wide.items() if name.endswith(end)), 0.15)
        for name, shape in shapes(kind, rows).items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(kind, rows)))
    return folder


KINDS = {"t5": "monot5-tiny", "t5-1.1": "monot5-tiny-v1.1", "mt5": "mt5-tiny-mmarco"}


@pytest.fixture(scope="module", params=KINDS)
def published(request, tmp_path_factory):
    return request.param, written(tmp_path_factory.mktemp(request.param) / KINDS[request.param], request.param)


def bucket(distance, both):
    """T5's bucket of the distance of a key from its query; `both` ways, or to earlier keys only."""
    buckets, start = (BUCKETS // 2, BUCKETS // 2 if distance > 0 else 0) if both else (BUCKETS, 0)
    distance = abs(distance) if both else -min(distance, 0)
    exact = buckets // 2
    if distance < exact:
        return start + distance
    # As floats of 32 bits: at a power of two the exact logarithm could fall on the other side.
    share = np.float32(np.log(np.float32(distance) / np.float32(exact))) / np.float32(math.log(FAR / exact))
    return start + min(exact + int(share * np.float32(buckets - exact)), buckets - 1)


def normed(states, weight):
    return weight * states / (states.pow(2).mean(-1, keepdim=True) + EPS).sqrt()


def attended(weights, name, states, keys, bias=None):
    """Attention of T5: without scaling, with a bias [heads, queries, keys]."""
    query, key, value = (
        (given @ weights[f"{name}.{part}.weight"].T).view(len(given), HEADS, SIZE)
        for part, given in (("q", states), ("k", keys), ("v", keys))
    )
    products = torch.einsum("qhd,khd->hqk", query, key) + (0 if bias is None else bias)
    return torch.einsum("hqk,khd->qhd", products.softmax(-1), value).flatten(1) @ weights[f"{name}.o.weight"].T


def stack(kind, weights, name, states, memory=None):
    table = weights[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    places = range(len(states))
    near = {distance: bucket(distance, memory is None) for distance in range(-len(states), len(states) + 1)}
    index = torch.tensor([[near[key - query] for key in places] for query in places])
    bias = table[index].permute(2, 0, 1)
    for number in range(LAYERS):
        layer = f"{name}.block.{number}.layer."
        seen = normed(states, weights[f"{layer}0.layer_norm.weight"])
        states = states + attended(weights, f"{layer}0.SelfAttention", seen, seen, bias)
        if memory is not None:
            seen = normed(states, weights[f"{layer}1.layer_norm.weight"])
            states = states + attended(weights, f"{layer}1.EncDecAttention", seen, memory)
        layer += "1." if memory is None else "2."
        seen = normed(states, weights[f"{layer}layer_norm.weight"])
        inner = layer + "DenseReluDense."
        if kind == "t5":
            found = (seen @ weights[f"{inner}wi.weight"].T).relu()
        else:
            gate = gelu(seen @ weights[f"{inner}wi_0.weight"].T, approximate="tanh")
            found = gate * (seen @ weights[f"{inner}wi_1.weight"].T)
        states = states + found @ weights[f"{inner}wo.weight"].T
    return normed(states, weights[f"{name}.final_layer_norm.weight"])


def log_shares(kind, weights, ids, answers):
    """log-softmax over the logits of the two answers, after one step of the decoder."""
    memory = stack(kind, weights, "encoder", weights["shared.weight"][ids])
    state = stack(kind, weights, "decoder", weights["shared.weight"][[0]], memory)[0]
    head = weights["shared.weight"] * WIDTH**-0.5 if kind == "t5" else weights["lm_head.weight"]
    return (head[answers] @ state).log_softmax(0)


def reference(kind, folder, pairs, answers):
    """pygaggle's string as one; of a pair that is too long the passage is cut, and the words after it are kept."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    weights = {name: value.double() for name, value in load_file(folder / "model.safetensors").items()}
    vocabulary = tokenizer.get_vocab()
    end = tokenizer("Relevant:")["input_ids"]
    ids, shares = [], []
    for query, passage in pairs:
        read = tokenizer(f"Query: {query} Document: {passage} Relevant:")["input_ids"]
        ids.append(read if len(read) <= 512 else read[: 512 - len(end)] + end)
        shares.append(log_shares(kind, weights, ids[-1], [vocabulary[answer] for answer in answers]).numpy())
    return ids, np.stack(shares)


def test_ids_and_scores_are_those_of_the_reference(published):
    kind, folder = published
    answers = ("▁true", "▁false") if kind.startswith("t5") else ("▁yes", "▁no")
    found = scored(folder)
    assert (found.session.facts.family, found.session.facts.packed) == ("encoder-decoder", False)
    assert not found.session.facts.profile_is_guess
    ids, shares = reference(kind, folder, PAIRS, answers)
    expect(found, ids, shares[:, 0] - shares[:, 1])
    assert np.abs(-np.log1p(np.exp(-found.scores.astype(np.float64))) - shares[:, 0]).max() <= 1e-5


def renamed(folder, path, **changes):
    shutil.copytree(folder, path)
    config = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("name", "answers", "guess"),
    [
        ("monot5-base-msmarco", ("▁true", "▁false"), False),
        ("ptt5-base-pt-msmarco", ("▁sim", "▁não"), False),
        ("mt5-base-mmarco-v2", ("▁yes", "▁no"), False),
        ("mt5-13b-mmarco-100k", ("▁true", "▁false"), False),
        ("mt5-3B-mmarco-en-pt", ("▁true", "▁"), False),
        ("own", ("▁yes", "▁no"), True),
    ],
)
def test_the_answers_follow_the_name_and_a_guess_is_said(tmp_path, name, answers, guess):
    folder = renamed(written(tmp_path / "made", "mt5"), tmp_path / name)
    session = open_session(ModelOptions(str(folder), device="cpu"))
    opened = open_tokenizer(ModelOptions(str(folder)))
    assert tuple(opened.tokenizer.tokens(opened.reading.answers.ids)) == answers
    assert session.facts.profile_is_guess == guess


def test_a_profile_chooses_other_answers(published):
    kind, folder = published
    few = PAIRS[::9]
    found = scored(folder, few, profile=profiles.PTT5)
    _, shares = reference(kind, folder, few, ("▁sim", "▁não"))
    assert np.abs(found.scores - (shares[:, 0] - shares[:, 1])).max() <= 1e-5


def refuse(error, pattern, call, *args, **kwargs):
    with pytest.raises(error, match=pattern) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path):
    folder = written(tmp_path / "mt5-own", "mt5")
    pair = renamed(folder, tmp_path / "duot5-base")
    refuse(ModelError, "compares two passages", open_tokenizer, ModelOptions(str(pair)))
    refuse(ModelError, "decoder_start_token_id cannot be 'x'", scored,
           renamed(folder, tmp_path / "start", decoder_start_token_id="x"), PAIRS[:1])  # fmt: skip
    refuse(ModelError, "encoder-decoder is scored but not trained", open_model,
           ModelOptions(str(folder), device="cpu"), TrainedPart(), Lengths())  # fmt: skip
    for option in ({"query_instruction": "find: "}, {"prompt": "?"}, {"label": "0"}, {"adapter": str(folder)}):
        options = ModelOptions(str(folder), family=FamilyOptions(**option))
        refuse((UsageError, ModelError), "no such option|not a PEFT adapter", open_tokenizer, options)
    unknown = ModelOptions(str(folder), family=FamilyOptions(profile=replace(profiles.MT5, no="nevermore")))
    refuse(UsageError, "no single token for 'nevermore'", open_tokenizer, unknown)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    bare = renamed(folder, tmp_path / "bare")
    save_file(weights, bare / "model.safetensors", {"format": "pt"})
    refuse(ModelError, r"weights lack the head \(lm_head.weight\)", scored, bare, PAIRS[:1])


def test_half_precision_is_bf16(published):
    _, folder = published
    opened = open_tokenizer(ModelOptions(str(folder)))
    assert half_precision(opened.checkpoint, opened.family) == "bf16"
