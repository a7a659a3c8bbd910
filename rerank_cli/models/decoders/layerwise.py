"""bge-reranker-v2-minicpm-layerwise: a Llama with three scalings and a scalar head a layer.

The scalings (of embeddings, and of what each block adds) are folded into the weights, in fp32 before they are cast, so
that stock Llama modules run it. Source: FlagEmbedding 1.4, `modeling_minicpm_reranker.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel, PreTrainedModel

from rerank_cli.errors import ModelError
from rerank_cli.models.answer_head import head_of_layer
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.layered import Cutoffs, LayeredDecoder, PlainLayeredDecoder, choose_cutoffs
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import TensorFiles, load_stock
from rerank_cli.models.options import FamilyOptions

_TAKEN_OVER = (
    "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "attention_bias",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
_DEFAULTS = {"num_hidden_layers": 32, "start_layer": 8, "scale_emb": 1, "scale_depth": 1}


def load_layerwise(checkpoint: Checkpoint, placement: Placement, options: FamilyOptions) -> LayeredDecoder:
    """The blocks up to the topmost cutoff layer, and a head for each layer asked for."""
    config = {**_DEFAULTS, **checkpoint.config}
    if config.get("head_type", "simple") != "simple":
        raise ModelError(f"{checkpoint.name}: head_type {config['head_type']!r} is for training only (expected simple)")
    cutoffs = layer_cutoffs(checkpoint, options)
    llama = LlamaConfig(
        **{name: config[name] for name in _TAKEN_OVER if config.get(name) is not None}, num_hidden_layers=cutoffs.top
    )
    backbone = load_stock(LlamaModel, checkpoint, placement, placement.attention or "eager", llama)
    files = TensorFiles(checkpoint)
    _fold(backbone, files, config)
    several = config.get("head_multi", True)
    names = [f"lm_head.{k - config['start_layer']}" if several else "lm_head" for k in cutoffs.layers]
    heads = [head_of_layer(files, f"{name}.linear_head.weight", None, placement.device) for name in names]
    kind = PlainLayeredDecoder if placement.attention is None else LayeredDecoder
    return kind(backbone, placement.device, cutoffs, heads)


def layer_cutoffs(checkpoint: Checkpoint, options: FamilyOptions) -> Cutoffs:
    config = {**_DEFAULTS, **checkpoint.config}
    known = range(int(config["start_layer"]), int(config["num_hidden_layers"]) + 1)
    return choose_cutoffs(options.cutoff_layers, known, checkpoint.name)


def _fold(backbone: PreTrainedModel, files: TensorFiles, config: Mapping[str, Any]) -> None:
    """Multiply the embeddings, and the last matrix of each branch of each block; `scale_depth` goes by full depth."""
    branch = config["scale_depth"] / config["num_hidden_layers"] ** 0.5
    for name, weight in backbone.named_parameters():
        factor = config["scale_emb"] if name == "embed_tokens.weight" else branch
        if name == "embed_tokens.weight" or name.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight")):
            stored = f"model.{name}" if f"model.{name}" in files else name
            with torch.no_grad():
                weight.copy_(files.read(stored).float() * factor)
