"""bge-reranker-v2-minicpm-layerwise: a Llama with three scaling factors and a scalar head per layer.

The factors (of the embeddings, and of each block's attention and feed-forward output) are multiplied into the weights,
in fp32 before they are cast, so that stock Llama modules run the model.
Source: FlagEmbedding 1.4, `modeling_minicpm_reranker.py`.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.layered import (
    LayeredDecoder,
    LayeredParts,
    answer_heads,
    choose_cutoffs,
    stock_settings,
)
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import load_stock
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.tensors import TensorFiles

_DEFAULTS = {"num_hidden_layers": 32, "start_layer": 8, "scale_emb": 1, "scale_depth": 1}


def load_layerwise(checkpoint: Checkpoint, placement: Placement, options: FamilyOptions) -> LayeredDecoder:
    """The blocks up to the top cutoff layer, and a head for each requested layer."""
    parts = layerwise_parts(checkpoint, placement, options)
    backbone, cutoffs, files = parts.backbone, parts.cutoffs, TensorFiles(checkpoint)
    heads = answer_heads(parts, [parts.known.index(layer) for layer in cutoffs.layers], checkpoint, placement.device)
    embeddings, branch = parts.scales
    for name, weight in backbone.named_parameters():
        factor = embeddings if name == "embed_tokens.weight" else branch
        if name == "embed_tokens.weight" or name.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight")):
            stored = f"model.{name}" if f"model.{name}" in files else name
            with torch.no_grad():
                weight.copy_((files.read(stored) if checkpoint.adapter is None else weight).float() * factor)
    return LayeredDecoder(backbone, placement.device, cutoffs, heads, packed=placement.attention is not None)


def layerwise_parts(checkpoint: Checkpoint, placement: Placement, options: FamilyOptions) -> LayeredParts:
    """The backbone as it is stored, without its scaling factors."""
    config = {**_DEFAULTS, **checkpoint.config}
    if config.get("head_type", "simple") != "simple":
        raise ModelError(f"{checkpoint.name}: head_type {config['head_type']!r} is for training only (expected simple)")
    known = range(int(config["start_layer"]), int(config["num_hidden_layers"]) + 1)
    cutoffs = choose_cutoffs(options.cutoff_layers, known, checkpoint.name)
    llama = LlamaConfig(**stock_settings(checkpoint, cutoffs, "hidden_act", "rope_scaling"))
    backbone = load_stock(LlamaModel, checkpoint, placement, placement.attention or "eager", llama)
    branch = config["scale_depth"] / config["num_hidden_layers"] ** 0.5  # of the full model's depth
    several = config.get("head_multi", True)
    heads = [f"lm_head.{place}" if several else "lm_head" for place in range(len(known))]
    names = [f"{head}.linear_head.weight" for head in heads]
    return LayeredParts(backbone, cutoffs, known, names, scales=(config["scale_emb"], branch))
