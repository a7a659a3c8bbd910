"""The last layer, computed only for the tokens that scores are read from.

A score is read from one token of each sequence (an encoder's first, a decoder's last), so the last layer needs keys and
values of all tokens, but queries, output projection and feed-forward only of those n tokens. `TrimmedLayer` takes the
place of the stock last layer and uses its sub-modules; each block layout has a function that computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rerank_cli.models.attention.packed import packed_attention
from rerank_cli.models.inputs import Packing

Rotary = tuple[Tensor, Tensor] | None
Layout = Callable[[Any, Tensor, Packing, Rotary], Tensor]


def layers_of(backbone: nn.Module) -> Any:
    """The backbone's list of layers; None if it is not one of the usual attributes."""
    return getattr(getattr(backbone, "encoder", backbone), "layer", None) or getattr(backbone, "layers", None)


def trim_last_layer(backbone: nn.Module) -> bool:
    """Replace the backbone's last layer if its layout is known; False if it is left as it is."""
    layers = layers_of(backbone)
    layout = _LAYOUTS.get(type(layers[-1]).__name__) if isinstance(layers, nn.ModuleList) else None
    if layout is not None:
        layers[-1] = TrimmedLayer(layers[-1], layout)
    return layout is not None


class TrimmedLayer(nn.Module):
    """Replaces a stock last layer: states [1, T, H] to the scored tokens' states [1, n, H]."""

    def __init__(self, layer: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.layer = layer
        self.layout = layout
        self.attention_type = getattr(layer, "attention_type", None)  # read by ModernBERT's backbone

    def forward(
        self, hidden_states: Tensor, *_: Any, packing: Packing, position_embeddings: Rotary = None, **__: Any
    ) -> Tensor:
        return self.layout(self.layer, hidden_states, packing, position_embeddings)


def _bert(layer: Any, states: Tensor, packing: Packing, _: Rotary) -> Tensor:
    """BERT, RoBERTa, XLM-R, CamemBERT and ELECTRA: post-norm blocks with separate projections."""
    attention, scored = layer.attention.self, states[:, packing.score_at]
    parts = attention.query(scored), attention.key(states), attention.value(states)
    context = _attend(attention, parts, packing, scaling=attention.scaling)
    return cast("Tensor", layer.feed_forward_chunk(layer.attention.output(context, scored)))


def _gte(layer: Any, states: Tensor, packing: Packing, rotary: Rotary) -> Tensor:
    """GTE: post-norm blocks with rotary positions."""
    attention, scored = layer.self_attn, states[:, packing.score_at]
    parts = attention.q_proj(scored), attention.k_proj(states), attention.v_proj(states)
    context = _attend(attention, parts, packing, rotary, scaling=attention.scaling)
    states = layer.post_attention_layernorm(scored + layer.post_attention_dropout(attention.o_proj(context)))
    return cast("Tensor", layer.post_mlp_layernorm(states + layer.post_mlp_dropout(layer.mlp(states))))


def _modern_bert(layer: Any, states: Tensor, packing: Packing, rotary: Rotary) -> Tensor:
    """ModernBERT: pre-norm blocks with one fused projection, whose query third is applied to the scored tokens."""
    attention, normed = layer.attn, layer.attn_norm(states)
    if type(attention.Wqkv) is nn.Linear:
        weight, bias = attention.Wqkv.weight, attention.Wqkv.bias
        width = weight.shape[0] // 3
        query = linear(normed[:, packing.score_at], weight[:width], None if bias is None else bias[:width])
        key, value = linear(normed, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    else:  # with an adapter the projection is more than its weight
        query, key, value = attention.Wqkv(normed).chunk(3, dim=-1)
        query = query[:, packing.score_at]
    options = {"scaling": attention.head_dim**-0.5, "sliding_window": attention.sliding_window}
    context = _attend(attention, (query, key, value), packing, rotary, **options)
    states = states[:, packing.score_at] + attention.out_drop(attention.Wo(context))
    return cast("Tensor", states + layer.mlp(layer.mlp_norm(states)))


def _llama(layer: Any, states: Tensor, packing: Packing, rotary: Rotary) -> Tensor:
    """Llama, Mistral, Qwen 2 and 3, Gemma: pre-norm blocks with rotary positions."""
    states = states[:, packing.score_at] + _llama_attention(layer, states, packing, rotary)
    return cast("Tensor", states + layer.mlp(layer.post_attention_layernorm(states)))


def _gemma2(layer: Any, states: Tensor, packing: Packing, rotary: Rotary) -> Tensor:
    """Gemma 2: Llama's block with norms after attention and feed-forward too."""
    context = _llama_attention(layer, states, packing, rotary)
    states = states[:, packing.score_at] + layer.post_attention_layernorm(context)
    return cast("Tensor", states + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(states))))


def _llama_attention(layer: Any, states: Tensor, packing: Packing, rotary: Rotary) -> Tensor:
    """The attention's output for the scored tokens, [1, n, H]."""
    attention, normed = layer.self_attn, layer.input_layernorm(states)
    parts = attention.q_proj(normed[:, packing.score_at]), attention.k_proj(normed), attention.v_proj(normed)
    options = {
        "scaling": attention.scaling,
        "sliding_window": getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)),
        "softcap": getattr(attention, "attn_logit_softcapping", None),
    }
    context = _attend(attention, parts, packing, rotary, **options)
    return cast("Tensor", attention.o_proj(context))


def _attend(
    attention: Any, parts: tuple[Tensor, Tensor, Tensor], packing: Packing, rotary: Rotary = None, **options: Any
) -> Tensor:
    """Packed attention of one query per sequence.

    `parts` are the projected queries [1, n, heads · size], and keys and values [1, T, kv heads · size]. Returns
    [1, n, heads · size].
    """
    size = attention.head_dim if hasattr(attention, "head_dim") else attention.attention_head_size  # BERT's name
    query, key, value = (part.view(1, part.shape[1], -1, size).transpose(1, 2) for part in parts)
    if hasattr(attention, "q_norm"):  # Qwen 3 normalizes its heads
        query, key = attention.q_norm(query), attention.k_norm(key)
    if rotary is not None:
        cos, sin = rotary
        key = _rotate(key, cos, sin)
        if packing.causal:  # an encoder's query is at position zero, where the rotation changes nothing
            query = _rotate(query, cos[:, packing.score_at], sin[:, packing.score_at])
    if attention.training:
        options["dropout"] = _dropout(attention)
    context, _ = packed_attention(attention, query, key, value, None, packing=packing, one_query=True, **options)
    return context.flatten(2)


def _dropout(attention: Any) -> float:
    """The probability that the stock layer passes to its attention while training: a module's, or a number."""
    known = getattr(attention, "dropout", getattr(attention, "attention_dropout", 0.0))
    return float(getattr(known, "p", known))


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split layout; states [1, heads, T, d], cos and sin [1, T, d]."""
    left, right = states.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    rotated = states.float() * cos[:, None].float() + turned.float() * sin[:, None].float()
    return rotated.to(states.dtype)


BERT_LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer")
_LLAMA_TYPES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma")
_LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(BERT_LAYERS, _bert),
    "GteLayer": _gte,
    "ModernBertEncoderLayer": _modern_bert,
    **{f"{name}DecoderLayer": _llama for name in _LLAMA_TYPES},
    "Gemma2DecoderLayer": _gemma2,
}
