"""bge-reranker-v2.5-gemma2-lightweight: Gemma 2 with a scalar head per layer and merging of passage states.

Two properties of the reference implementation are defaults here, because all published scores come from it: it ignores
`attn_logit_softcapping` (its default attention cannot apply it), and it takes heads by the rank of a layer among the
requested ones, so that `--cutoff-layers 28` is scored by the checkpoint's first head. `--softcap` and
`--layer-heads trained` follow the training of the checkpoint instead. Source: FlagEmbedding 1.4, `gemma_model.py`.
"""

from __future__ import annotations

from transformers import Gemma2Config, Gemma2Model

from rerank_cli.choices import LayerHeads
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.layered import (
    Compression,
    Cutoffs,
    LayeredDecoder,
    LayeredParts,
    answer_heads,
    choose_cutoffs,
    stock_settings,
)
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import load_stock
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts.profiles import SAVED_PROFILE

_GEMMA_SETTINGS = (
    "head_dim", "hidden_activation", "query_pre_attn_scalar", "sliding_window", "final_logit_softcapping",
    "attn_logit_softcapping",
)  # fmt: skip
_COMPRESSED_BY_DEFAULT = (8,)


def load_lightweight(checkpoint: Checkpoint, placement: Placement, options: FamilyOptions) -> LayeredDecoder:
    """The blocks up to the top cutoff layer, and a head for each requested layer."""
    parts = lightweight_parts(checkpoint, placement, options)
    cutoffs = parts.cutoffs
    folders = filter(None, (checkpoint.adapter, checkpoint.folder))
    ours = any((folder / SAVED_PROFILE).is_file() for folder in folders)  # `rerank train` trains each layer's own head
    trained = (options.layer_heads or (LayerHeads.TRAINED if ours else None)) is LayerHeads.TRAINED
    numbers = [parts.known.index(layer) if trained else rank for rank, layer in enumerate(cutoffs.layers)]
    heads = answer_heads(parts, numbers, checkpoint, placement.device)
    compression = compression_of(options, cutoffs, checkpoint.name)
    packed = placement.attention is not None
    return LayeredDecoder(parts.backbone, placement.device, cutoffs, heads, compression, packed=packed)


def lightweight_parts(checkpoint: Checkpoint, placement: Placement, options: FamilyOptions) -> LayeredParts:
    config = checkpoint.config
    if not config.get("layer_wise", False):
        raise ModelError(f"{checkpoint.name}: has no head per layer (layer_wise is false in config.json)")
    start, step = int(config.get("start_layer", 28)), int(config.get("layer_sep", 28))
    known = range(start, int(config["num_hidden_layers"]) + 1, step)
    cutoffs = choose_cutoffs(options.cutoff_layers, known, checkpoint.name)
    compression_of(options, cutoffs, checkpoint.name)  # before the weights are loaded
    gemma = Gemma2Config(**stock_settings(checkpoint, cutoffs, *_GEMMA_SETTINGS))
    if not options.softcap:
        gemma.attn_logit_softcapping = None
    backbone = load_stock(Gemma2Model, checkpoint, placement, placement.attention or "eager", gemma)
    names = [f"lm_head.{number}.linear_head.weight" for number in range(len(known))]
    return LayeredParts(backbone, cutoffs, known, names, gemma.final_logit_softcapping)


def compression_of(options: FamilyOptions, cutoffs: Cutoffs, where: str) -> Compression:
    """`--compress-layers` and `--compress-ratio`. Raises UsageError for values that would have no effect."""
    layers, ratio = options.compress_layers, options.compress_ratio or 1
    if layers is not None and ratio == 1:
        raise UsageError("--compress-layers changes nothing without --compress-ratio (expected 2, 4 or 8)")
    layers = _COMPRESSED_BY_DEFAULT if layers is None else layers
    if ratio > 1:
        for layer in options.compress_layers or ():
            if not 0 < layer < cutoffs.depth:
                raise UsageError(
                    f"--compress-layers {layer}: {where} has blocks 1 to {cutoffs.depth - 1} to compress at"
                )
        if all(layer >= cutoffs.top for layer in layers):
            named = ", ".join(map(str, layers))
            raise UsageError(
                f"--compress-ratio {ratio}: no layer to compress at ({named}) is below cutoff layer {cutoffs.top}. "
                "Fix: --compress-layers"
            )
    return Compression(frozenset(layers), ratio)
