"""Tiny checkpoints of every model type that the tests have, with heads of 16 numbers, which the flash kernel takes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "models")]

import tiny  # noqa: E402
from jina import make_jina  # noqa: E402
from test_modular import write  # noqa: E402
from test_seq2seq import KINDS, written  # noqa: E402

_WIDER = {48: 64, 96: 128}
# As deep as published ones: bge-reranker-v2-m3 and Qwen3-Reranker-0.6B.
_DEEP = {"xlm-roberta-24": ("xlm-roberta", 24), "qwen3-28": ("qwen3", 28)}
_LAYERED = {"layerwise": "minicpm-layerwise", "lightweight": "gemma2-lightweight"}


@dataclass(frozen=True)
class Rehearsed:
    """A checkpoint and what its CUDA path should be.

    `packs` is what a CPU finds of the type. `kernel` is whether its attention is the variable-length kernel, `compiles`
    whether `--compile` takes it, `quantizes` whether `--quantize` does.
    """

    name: str
    folder: Path
    layers: int
    packs: bool
    kernel: bool
    compiles: bool
    quantizes: bool
    lists: bool = False
    options: FamilyOptions = field(default_factory=FamilyOptions)


def rehearsed(scratch: Path, names: Sequence[str] | None) -> Iterator[Rehearsed]:
    """Write the checkpoints one after the other."""
    writers = _writers()
    for name in names or writers:
        if name not in writers:
            sys.exit(f"--models {name}: no such model (expected one of {', '.join(writers)})")
        folder, options = scratch / name, FamilyOptions()
        torch.manual_seed(1)
        writers[name](folder)
        if _DEEP.get(name, (name,))[0] in tiny.decoders():
            options = FamilyOptions(profile=profiles.BGE)
        if name == "layerwise":
            options = FamilyOptions(cutoff_layers=(4, 6))
        if name == "lightweight":
            options = FamilyOptions(cutoff_layers=(6,), compress_layers=(2,), compress_ratio=2)
        session = open_session(ModelOptions(str(folder), device="cpu", dtype="fp32", family=options))
        packs, lists, layers = session.facts.packed, session.facts.listwise, _layers(folder)
        kernel = packs and not lists and name != "gemma2"  # whose attention has a softcap
        compiles = kernel and name not in _LAYERED
        quantizes = name != "gpt2"  # which has no linear layers, but convolutions of width 1
        yield Rehearsed(name, folder, layers, packs, kernel, compiles, quantizes, lists, options)
        shutil.rmtree(folder)


def _layers(folder: Path) -> int:
    config, names = json.loads((folder / "config.json").read_text()), ("num_hidden_layers", "n_layers", "n_layer")
    return int(next(config[name] for name in (*names, "num_layers") if name in config))


def _writers() -> dict[str, Callable[[Path], object]]:
    """By name: a function that writes the checkpoint into a folder."""
    tiny.SMALL.update(hidden_size=64, intermediate_size=128, num_hidden_layers=3)
    encoders = {name: (lambda folder, name=name: _encoder(folder, name)) for name in tiny.configs()}
    decoders = {name: (lambda folder, name=name: _decoder(folder, name)) for name in tiny.decoders()}
    layered = {name: (lambda folder, of=of: _layered(folder, of)) for name, of in _LAYERED.items()}
    others: dict[str, Callable[[Path], object]] = {"modular": _modular, "listwise": _listwise}
    for kind in KINDS:
        others[kind] = lambda folder, kind=kind: written(folder, kind)
    deep = {"xlm-roberta-24": lambda folder: _deep(folder, "xlm-roberta-24", _encoder),
            "qwen3-28": lambda folder: _deep(folder, "qwen3-28", _decoder)}  # fmt: skip
    return encoders | decoders | layered | others | deep


def _deep(folder: Path, name: str, write_shallow: Callable[[Path, str], None]) -> None:
    of, layers = _DEEP[name]
    with patch.dict(tiny.SMALL, num_hidden_layers=layers):
        write_shallow(folder, of)


def _listwise(folder: Path) -> None:
    folder.mkdir()
    make_jina(folder)


def _modular(folder: Path) -> None:
    """A ModernBERT that sentence-transformers saved, whose pooling leaves out the prompt."""
    config, tokenizer = tiny.configs()["modernbert-cls"]
    tf.AutoModel.from_config(config).save_pretrained(folder)
    _copy_tokenizer(tokenizer, folder)
    last = {"in_features": 64, "out_features": 1, "activation_function": "torch.nn.modules.linear.Identity"}
    weights = {"linear.weight": torch.randn(1, 64), "linear.bias": torch.zeros(1)}
    pooling = {"pooling_mode": "weightedmean", "include_prompt": False}
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        write(folder / "1_Pooling", pooling, "pooling.Pooling", {}),
        write(folder / "2_Dense", last, "dense.Dense", weights),
    ]
    (folder / "modules.json").write_text(json.dumps(listed))


def _encoder(folder: Path, name: str) -> None:
    config, tokenizer = tiny.configs()[name]
    if name == "distilbert":
        config = tf.DistilBertConfig(**config.to_dict() | {"dim": 64, "hidden_dim": 128})
    if name == "deberta-v2":
        config.pooler_hidden_size = 64
    tf.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    _copy_tokenizer(tokenizer, folder)


def _decoder(folder: Path, name: str) -> None:
    config = tiny.decoders()[name]
    if name == "gpt2":
        config = tf.GPT2Config(**config.to_dict() | {"n_embd": 64})
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _copy_tokenizer("gemma", folder)


def _layered(folder: Path, of: str) -> None:
    """The checkpoint of the parity tests, wider, with random weights."""
    folder.mkdir()
    _copy_tokenizer(of, folder)
    config = json.loads((tiny.PARITY / of / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64, "intermediate_size": 128}))
    heads = 16 * config["num_attention_heads"]
    shared = 16 * config["num_key_value_heads"]
    weights = {}
    for name, weight in load_file(tiny.PARITY / of / "model.safetensors").items():
        shape = [_WIDER.get(size, size) for size in weight.shape]
        if "q_proj" in name:
            shape[0] = heads
        if "k_proj" in name or "v_proj" in name:
            shape[0] = shared
        if "o_proj" in name:
            shape[1] = heads
        weights[name] = torch.randn(shape) * 0.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _copy_tokenizer(of: str, folder: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny.PARITY / of / file, folder)
