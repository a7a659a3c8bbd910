"""The checkpoint that training begins with, where the named one gives no score for a pair yet.

An encoder without a head for one label (a bi-encoder, a masked language model) gets a new one. A causal language model
with `--start-layer` becomes a layerwise model: a head on each layer from there on, which begins as the row of its
language head for "Yes", as in FlagEmbedding's training from a raw model. The files are made in a folder of their own.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import save_file
from torch import Tensor

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.checkpoint import Checkpoint, resolve
from rerank_cli.models.loading import silent
from rerank_cli.models.prompts.tokens import load_tokenizer
from rerank_cli.models.registry import is_causal
from rerank_cli.models.tensors import TensorFiles
from rerank_cli.storage.files import writing

_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model",
    "generation_config.json",
)  # fmt: skip
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining")
_NEW = frozenset(("classifier", "pooler", "pre_classifier", "score", "head"))
_LAYERWISE, _LIGHTWEIGHT = ("llama", "minicpm"), ("gemma2",)
_ANSWER = "Yes"


def needs_head(checkpoint: Checkpoint) -> bool:
    """Whether it is an encoder without a head, which transformers can give one for a single label."""
    from transformers.models.auto import modeling_auto as known

    architectures = [str(name) for name in checkpoint.config.get("architectures") or []]
    model_type = str(checkpoint.config.get("model_type", ""))
    dense = any(module.kind == "Dense" and module.config.get("out_features") == 1 for module in checkpoint.modules)
    encoder = model_type in known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES and not is_causal(checkpoint)
    return encoder and not dense and any(name.endswith(_HEADLESS) for name in architectures)


def needs_layers(checkpoint: Checkpoint, start_layer: int | None) -> bool:
    """Whether it is a causal language model that is to become a layerwise model."""
    return start_layer is not None and "start_layer" not in checkpoint.config and is_causal(checkpoint)


def begin(checkpoint: Checkpoint, start_layer: int | None, seed: int, folder: Path) -> Checkpoint:
    """The checkpoint itself, or one made of it in `folder`, which is a pure function of it and the seed.

    Its name stays. Raises ModelError, UsageError or OutputError.
    """
    if needs_layers(checkpoint, start_layer):
        make: Any = _with_layers
    elif needs_head(checkpoint):
        make = _with_head
    else:
        return checkpoint
    with writing(str(folder)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in _TOKENIZER:
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, folder / name)
        make(checkpoint, folder, seed if make is _with_head else start_layer)
    return replace(resolve(str(folder)), name=checkpoint.name, made=True)


def _with_head(checkpoint: Checkpoint, folder: Path, seed: int) -> None:
    """Write it as a classification model with one label, whose new tensors are random."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    with silent():
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(checkpoint.folder),
            num_labels=1,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    lacking = sorted(name for name in info["missing_keys"] if not _NEW.intersection(name.split(".")))
    if lacking:
        raise ModelError(f"{checkpoint.name}: weights lack {len(lacking)} tensors ({', '.join(lacking[:3])}, …)")
    with silent():
        model.save_pretrained(folder)


def _with_layers(checkpoint: Checkpoint, folder: Path, start_layer: int) -> None:
    """Write it as a layerwise model (Llama, MiniCPM) or a lightweight one (Gemma 2). Weights keep their dtype."""
    config = dict(checkpoint.config)
    model_type, last = str(config.get("model_type")), int(config.get("num_hidden_layers", 0))
    if model_type not in _LAYERWISE + _LIGHTWEIGHT:
        expected = ", ".join(_LAYERWISE + _LIGHTWEIGHT)
        raise UsageError(f"--start-layer: {checkpoint.name} is of type {model_type} (expected {expected})")
    if not 1 <= start_layer <= last:
        raise UsageError(f"--start-layer {start_layer}: expected 1 to {last} for {checkpoint.name}")
    config |= {"start_layer": start_layer}
    if model_type in _LIGHTWEIGHT:
        config |= {"architectures": ["CostWiseGemmaForCausalLM"], "model_type": "cost_wise_gemma"}
        config |= {"layer_wise": True, "layer_sep": 1}
    else:
        config |= {"architectures": ["LayerWiseMiniCPMForCausalLM"], "model_type": "minicpm"}
        config |= {"head_multi": True, "head_type": "simple"}
    if model_type == "llama":  # without MiniCPM's scaling: its factor of a block's output is scale_depth / √layers
        config |= {"scale_emb": 1, "scale_depth": math.sqrt(last), "dim_model_base": config["hidden_size"]}
    (folder / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
    answer = int(load_tokenizer(checkpoint.folder).encode([_ANSWER], None)[0][0])
    files = TensorFiles(checkpoint)
    head = "lm_head.weight" if "lm_head.weight" in files else "model.embed_tokens.weight"
    row = files.read(head, [answer])
    weights: dict[str, Tensor] = {name: files.read(name) for name in files.names if name != "lm_head.weight"}
    heads = {f"lm_head.{n}.linear_head.weight": row.clone() for n in range(last - start_layer + 1)}
    save_file(weights | heads, folder / "model.safetensors", metadata={"format": "pt"})
