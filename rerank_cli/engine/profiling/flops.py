"""Floating-point operations of a packed row: those that are worked out, and those of the plain model on the same pairs.

A product of [m, k] and [k, n] is 2·m·k·n operations, so that a token costs twice the weights it passes through: Kaplan
et al., "Scaling Laws for Neural Language Models" (arXiv 2001.08361, 2.1) and Chowdhery et al., "PaLM" (arXiv
2204.02311, appendix B). Attention costs 4·d for each query and key that see one another, d being the width of all heads
together. What a mask hides (tokens behind a causal one, or outside a window) is not counted, which PaLM does; neither
are filler, look-ups of embeddings, norms, activations and softmax, which are no matrix products.

Weights are those of the stock class, built anew from the configuration without memory: it does not matter how the model
at hand keeps them. Types that are not listed, and padded models, are not counted.
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
from rerank_cli.models.encoders.classifier import PackedEncoder
from rerank_cli.models.families import CrossEncoder
from rerank_cli.models.packed_row import TokenRow

_DENSE = {
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert", "gte",
    "gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "granite", "phi", "cohere", "olmo2", "gemma3_text",
}  # fmt: skip
_OF_ALL_TOKENS = ("key.weight", "value.weight", "k_proj.weight", "v_proj.weight")
_FUSED = "Wqkv.weight"


@dataclass(frozen=True, slots=True)
class Flops:
    """`done` is worked out for a row; `nominal` is what its pairs take of the plain model.

    Nominal is each distinct pair by itself, nothing shared, and every layer for all of its tokens.
    """

    done: int
    nominal: int

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.done + other.done, self.nominal + other.nominal)


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of a layer's matrices: those of keys and values, and the others. `reach` is how far a token sees."""

    keys: int
    others: int
    reach: int | None


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model costs: `before` the blocks a token, `head` a score, both in weights; `width` is that of all heads.

    In a trimmed model the last block works out keys and values alone for tokens that are not scored.
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
            seen += (pairs_of_scored if last else pairs_seen)(row, block.reach, self.causal)
        return 2 * weights + 4 * self.width * seen


def row_flops(model: CrossEncoder, row: TokenRow) -> Flops | None:
    """Operations of one row; None where they are not counted. For many rows, ask `costs_of` once."""
    costs = costs_of(model)
    return costs.of(row) if costs else None


def costs_of(model: CrossEncoder) -> Costs | None:
    """What a loaded model costs, None for a kind that is not counted."""
    if isinstance(model, CompiledModel):
        model = model.plain
    if not isinstance(model, PackedEncoder | PackedDecoder | LayeredDecoder) or not model.packed:
        return None
    parts = cast("Any", model)
    config = parts._backbone.config
    if config.model_type not in _DENSE:
        return None
    stock = _without_memory(config)
    blocks = next(m for m in stock.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers)
    inside = {id(module) for module in blocks.modules()}
    outside = [
        module
        for name, module in stock.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in inside and "pooler" not in name
    ]
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Costs(
        before=sum(module.weight.numel() for module in outside),
        blocks=tuple(_block(block, config) for block in blocks),
        width=config.num_attention_heads * size,
        head=_head(model),
        causal=not isinstance(model, PackedEncoder),
        trimmed=bool(getattr(parts, "_trimmed", False)),
        compression=getattr(parts, "_compression", Compression()),
    )


def _without_memory(config: Any) -> nn.Module:
    """The stock backbone of this configuration on the meta device."""
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
        elif name.endswith(_OF_ALL_TOKENS):
            keys += weight.numel()
        else:
            others += weight.numel()
    windowed = [module for module in block.modules() if hasattr(module, "sliding_window")]
    window = cast("Any", windowed[0] if windowed else config)
    window = getattr(window, "sliding_window", None)
    return Block(keys, others, None if window is None else window - 1)


def _head(model: PackedEncoder | PackedDecoder | LayeredDecoder) -> int:
    """Weights that a score passes through behind the blocks."""
    parts = cast("Any", model)
    if isinstance(model, PackedEncoder):
        return sum(weight.numel() for weight in parts._head.parameters() if weight.dim() == 2)
    heads = [parts._head] if isinstance(model, PackedDecoder) else parts._heads.values()
    return sum(head.rows.numel() for head in heads)


def pairs_seen(row: TokenRow, reach: int | None, causal: bool) -> int:
    """Pairs of a query and a key in a layer that is worked out for all tokens."""
    lengths, before = row.lengths, row.prefixes
    if causal:
        return int((_up_to(before + lengths, reach) - _up_to(before, reach)).sum())
    if reach is None:
        return int((lengths**2).sum())
    far = np.minimum(reach, lengths - 1)
    return int((lengths + 2 * far * lengths - far * (far + 1)).sum())


def pairs_of_scored(row: TokenRow, reach: int | None, _causal: bool) -> int:
    """The same in a layer whose only queries are the scored tokens, the first or the last of each sequence."""
    lengths = row.sequence_lengths
    return int((lengths if reach is None else np.minimum(lengths, reach + 1)).sum())


def _up_to(count: Any, reach: int | None) -> Any:
    """Keys that the first `count` tokens of a causal sequence see together."""
    if reach is None:
        return count * (count + 1) // 2
    near = np.minimum(count, reach + 1)
    return near * (near + 1) // 2 + (count - near) * (reach + 1)
