"""bge-reranker-v2.5-gemma2-lightweight: Gemma 2 with a scalar head a layer and merging of passage states.

Two habits of the reference implementation are defaults here, because all published scores come from them: it ignores
`attn_logit_softcapping` (its default attention cannot apply it), and it takes heads by their rank among the layers
asked for, so that `--cutoff-layers 28` is scored by the first head of the checkpoint. `--softcap` and
`--layer-heads trained` do what the checkpoint was trained with. Source: FlagEmbedding 1.4, `gemma_model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import Gemma2Config, Gemma2Model

from rerank_cli.choices import LayerHeads
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.answer_head import head_of_layer
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.layered import Compression, Cutoffs, LayeredDecoder, PlainLayeredDecoder, choose_cutoffs
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import TensorFiles, load_stock
from rerank_cli.models.options import FamilyOptions

_TAKEN_OVER = (
    "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_activation", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_parameters", "attention_bias",
    "query_pre_attn_scalar", "sliding_window", "final_logit_softcapping", "attn_logit_softcapping",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
_COMPRESSED_BY_DEFAULT = (8,)


def load_lightweight(checkpoint: Checkpoint, placement: Placement, options: FamilyOptions) -> LayeredDecoder:
    """The blocks up to the topmost cutoff layer, and a head for each layer asked for."""
    config = checkpoint.config
    if not config.get("layer_wise", False):
        raise ModelError(f"{checkpoint.name}: has no head a layer (layer_wise is false in config.json)")
    cutoffs = layer_cutoffs(checkpoint, options)
    gemma = Gemma2Config(
        **{name: config[name] for name in _TAKEN_OVER if config.get(name) is not None}, num_hidden_layers=cutoffs.top
    )
    if not options.softcap:
        gemma.attn_logit_softcapping = None
    backbone = load_stock(Gemma2Model, checkpoint, placement, placement.attention or "eager", gemma)
    files, cap = TensorFiles(checkpoint), gemma.final_logit_softcapping
    names = [f"lm_head.{number}.linear_head.weight" for number in _heads(cutoffs, checkpoint, options)]
    heads = [head_of_layer(files, name, cap, placement.device) for name in names]
    kind = PlainLayeredDecoder if placement.attention is None else LayeredDecoder
    return kind(backbone, placement.device, cutoffs, heads, compression(options, cutoffs, checkpoint.name))


def layer_cutoffs(checkpoint: Checkpoint, options: FamilyOptions) -> Cutoffs:
    return choose_cutoffs(options.cutoff_layers, _layers_with_heads(checkpoint), checkpoint.name)


def compression(options: FamilyOptions, cutoffs: Cutoffs, where: str) -> Compression:
    """`--compress-layers` and `--compress-ratio`; UsageError for what would change nothing without a word."""
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
                f"--compress-ratio {ratio}: no layer to compress at ({named}) lies below cutoff layer {cutoffs.top}. "
                "Fix: --compress-layers"
            )
    return Compression(frozenset(layers), ratio)


def _layers_with_heads(checkpoint: Checkpoint) -> range:
    config = checkpoint.config
    return range(
        int(config.get("start_layer", 28)), int(config["num_hidden_layers"]) + 1, int(config.get("layer_sep", 28))
    )


def _heads(cutoffs: Cutoffs, checkpoint: Checkpoint, options: FamilyOptions) -> Sequence[int]:
    if options.layer_heads is LayerHeads.TRAINED:
        return [_layers_with_heads(checkpoint).index(layer) for layer in cutoffs.layers]
    return range(len(cutoffs.layers))
