"""Counts floating-point operations of a packed row: those done, and those of the plain model on the same pairs.

A product of [m, k] and [k, n] takes 2·m·k·n operations, so a token costs twice the weights it passes through: Kaplan et
al., "Scaling Laws for Neural Language Models" (arXiv 2001.08361, 2.1) and Chowdhery et al., "PaLM" (arXiv 2204.02311,
appendix B). Attention costs 4·d for each query and key that attend to each other, where d is the width of all heads
together. Pairs that a mask hides (later tokens in a causal model, tokens outside a window) are not counted, unlike in
PaLM. Filler, embedding look-ups, norms, activations and softmax are not matrix products and not counted.

Weights are those of the model's class, built from the configuration on the meta device, so it does not matter how the
model stores them. Model types that are not listed, and padded models, are not counted.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from rerank_cli.models.compiled import CompiledModel
from rerank_cli.models.decoders.causal import PackedDecoder
from rerank_cli.models.decoders.layered import Compression, LayeredDecoder, compress
from rerank_cli.models.encoders.bert.encoder import BertEncoder
from rerank_cli.models.encoders.bert.load import without_weights
from rerank_cli.models.encoders.bert.shape import BertShape
from rerank_cli.models.encoders.scoring import PackedEncoder
from rerank_cli.models.families import CrossEncoder
from rerank_cli.models.packed_row import TokenRow

_DENSE = {
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert", "gte",
    "gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "granite", "phi", "cohere", "olmo2", "gemma3_text",
}  # fmt: skip
_KEYS_AND_VALUES = ("key.weight", "value.weight", "k_proj.weight", "v_proj.weight")
_FUSED = "Wqkv.weight"


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations `done` for a row, and `nominal` ones: of the plain model, each pair alone, every layer in full."""

    done: int
    nominal: int

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.done + other.done, self.nominal + other.nominal)


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of a layer's matrices: of keys and values, and of the rest. `reach` is the distance of its window."""

    keys: int
    others: int
    reach: int | None


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a model in weights: `before` per token outside the blocks, `head` per score; `width` is all heads' d.

    In a trimmed model the last block computes only keys and values for tokens that are not scored.
    """

    before: int
    blocks: tuple[Block, ...]
    width: int
    head: int
    causal: bool
    trimmed: bool
    compression: Compression

    def of(self, row: TokenRow) -> Flops:
        return Flops(self._count(row, self.trimmed), self._count(row.unshared(), trimmed=False))

    def _count(self, row: TokenRow, trimmed: bool) -> int:
        weights = row.tokens * self.before + row.sequences * self.head
        seen = 0
        for number, block in enumerate(self.blocks):
            if self.compression.at(number):
                row, _ = compress(row, torch.zeros(1, row.tokens, 1), self.compression.ratio)
            last = trimmed and number == len(self.blocks) - 1
            weights += row.tokens * block.keys + (row.sequences if last else row.tokens) * block.others
            if last:  # the only queries are the scored tokens, the first or the last of each sequence
                keys = row.sequence_lengths
                seen += int((keys if block.reach is None else np.minimum(keys, block.reach + 1)).sum())
            else:
                seen += _attending_pairs(row, block.reach, self.causal)
        return 2 * weights + 4 * self.width * seen


def _attending_pairs(row: TokenRow, reach: int | None, causal: bool) -> int:
    """Pairs of a query and a key that attend to each other in a layer that is computed for all tokens."""
    lengths, before = row.lengths, row.prefixes
    if causal:
        return int((_causal_keys(before + lengths, reach) - _causal_keys(before, reach)).sum())
    if reach is None:
        return int((lengths**2).sum())
    far = np.minimum(reach, lengths - 1)
    return int((lengths + 2 * far * lengths - far * (far + 1)).sum())


def _causal_keys(count: Any, reach: int | None) -> Any:
    """Keys that the first `count` tokens of a causal sequence attend to, summed."""
    if reach is None:
        return count * (count + 1) // 2
    near = np.minimum(count, reach + 1)
    return near * (near + 1) // 2 + (count - near) * (reach + 1)


def costs_of(model: CrossEncoder) -> Costs | None:
    """Costs of a loaded model, None for a type that is not counted."""
    if isinstance(model, CompiledModel):
        model = model.plain
    if not isinstance(model, PackedEncoder | PackedDecoder | LayeredDecoder) or not model.packed:
        return None
    parts, config = cast("Any", model), cast("Any", model.backbone.config)
    if config.model_type not in _DENSE:
        return None
    stock = _without_weights(config)
    blocks = next(m for m in stock.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers)
    inside = {id(module) for module in blocks.modules()}
    outside = [
        module.weight.numel()
        for name, module in stock.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in inside and "pooler" not in name
    ]
    if isinstance(model, PackedEncoder):
        head = sum(weight.numel() for weight in parts._head.parameters() if weight.dim() == 2)
    else:
        heads = [parts._head] if isinstance(model, PackedDecoder) else parts._heads.values()
        head = sum(head.rows.numel() for head in heads)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Costs(
        before=sum(outside),
        blocks=tuple(_block(block, config) for block in blocks),
        width=config.num_attention_heads * size,
        head=head,
        causal=not isinstance(model, PackedEncoder),
        trimmed=bool(getattr(parts, "_trimmed", False)),
        compression=getattr(parts, "compression", Compression()),
    )


def _without_weights(config: Any) -> nn.Module:
    if isinstance(config, BertShape):
        return without_weights(lambda: BertEncoder(config))
    from transformers import AutoModel

    with torch.device("meta"):
        stock: nn.Module = AutoModel.from_config(copy.deepcopy(config))
    return stock


def _block(block: nn.Module, config: Any) -> Block:
    keys = others = 0
    for name, weight in block.named_parameters():
        if weight.dim() != 2:
            continue
        if name.endswith(_FUSED):
            keys, others = keys + weight.numel() * 2 // 3, others + weight.numel() // 3
        elif name.endswith(_KEYS_AND_VALUES):
            keys += weight.numel()
        else:
            others += weight.numel()
    windowed: list[Any] = [module for module in block.modules() if hasattr(module, "sliding_window")]
    window = getattr(windowed[0] if windowed else config, "sliding_window", None)
    return Block(keys, others, None if window is None else window - 1)
