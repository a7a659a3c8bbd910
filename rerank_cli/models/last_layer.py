"""The last layer, worked out only where the score is read.

A score is read from one token of each sequence (an encoder's first, a decoder's last), so the last layer needs keys and
values of all tokens, but queries, output projection and feed-forward of those alone. One small module a block layout,
put in place of the stock last layer and made of its own sub-modules: it takes states [1, T, H] and gives [1, n, H].
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rerank_cli.models.inputs import Packing


def trim_last_layer(backbone: nn.Module) -> bool:
    """Exchange the backbone's last layer where its layout is one of ours; False where it is left alone."""
    layers = getattr(getattr(backbone, "encoder", backbone), "layer", None) or getattr(backbone, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return False
    trimmed = _LAYOUTS.get(type(layers[-1]).__name__)
    if trimmed is None:
        return False
    layers[-1] = trimmed(layers[-1])
    return True


def _heads(states: Tensor, size: int) -> Tensor:
    """[1, L, heads · size] to [1, heads, L, size]."""
    return states.view(1, states.shape[1], -1, size).transpose(1, 2)


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Packed attention with one query a sequence: [1, heads, n, d] over [1, heads, T, d] to [1, n, heads · d]."""
    config = cast("Any", module).config
    attention = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
    context, _ = attention(module, query, key, value, None, one_query=True, **options)
    return cast("Tensor", context).flatten(2)


class TrimmedLayer(nn.Module):
    """Stands in the place of a stock layer and is made of its sub-modules."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


class BertLastLayer(TrimmedLayer):
    """BERT, RoBERTa, XLM-R, CamemBERT and ELECTRA: post-norm blocks with separate projections."""

    def forward(self, hidden_states: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        layer = cast("Any", self.layer)
        attention = layer.attention.self
        size = attention.attention_head_size
        first = hidden_states[:, packing.score_at]
        query = _heads(attention.query(first), size)
        key, value = _heads(attention.key(hidden_states), size), _heads(attention.value(hidden_states), size)
        context = _attend(attention, query, key, value, scaling=attention.scaling, packing=packing)
        return cast("Tensor", layer.feed_forward_chunk(layer.attention.output(context, first)))


class GteLastLayer(TrimmedLayer):
    """GTE: post-norm blocks with rotary positions; a first token stands at position zero, which rotates nothing."""

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        packing: Packing,
        position_embeddings: tuple[Tensor, Tensor],
        **__: Any,
    ) -> Tensor:
        layer = cast("Any", self.layer)
        attention = layer.self_attn
        first = hidden_states[:, packing.score_at]
        query = _heads(attention.q_proj(first), attention.head_dim)
        key, value = (_heads(p(hidden_states), attention.head_dim) for p in (attention.k_proj, attention.v_proj))
        key = _rotate(key, *position_embeddings)
        context = _attend(attention, query, key, value, scaling=attention.scaling, packing=packing)
        states = layer.post_attention_layernorm(first + attention.o_proj(context))
        return cast("Tensor", layer.post_mlp_layernorm(states + layer.mlp(states)))


class ModernBertLastLayer(TrimmedLayer):
    """ModernBERT: pre-norm blocks with one fused projection, of which the query third is applied to few tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.attention_type = cast("Any", layer).attention_type

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        packing: Packing,
        position_embeddings: tuple[Tensor, Tensor],
        **__: Any,
    ) -> Tensor:
        layer = cast("Any", self.layer)
        attention, size = layer.attn, layer.attn.head_dim
        normed, first = layer.attn_norm(hidden_states), hidden_states[:, packing.score_at]
        weight, bias = attention.Wqkv.weight, attention.Wqkv.bias
        width = weight.shape[0] // 3
        project = nn.functional.linear
        query = project(normed[:, packing.score_at], weight[:width], None if bias is None else bias[:width])
        both = project(normed, weight[width:], None if bias is None else bias[width:])
        key, value = (_heads(part, size) for part in both.chunk(2, dim=-1))
        context = _attend(
            attention,
            _heads(query, size),
            _rotate(key, *position_embeddings),
            value,
            scaling=size**-0.5,
            packing=packing,
            sliding_window=attention.sliding_window,
        )
        states = first + attention.Wo(context)
        return cast("Tensor", states + layer.mlp(layer.mlp_norm(states)))


class LlamaLastLayer(TrimmedLayer):
    """Llama, Mistral, Qwen 2 and 3, Gemma: pre-norm blocks with rotary positions, heads normed in some of them."""

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        packing: Packing,
        position_embeddings: tuple[Tensor, Tensor],
        **__: Any,
    ) -> Tensor:
        layer = cast("Any", self.layer)
        states = hidden_states[:, packing.score_at] + self.attend(hidden_states, packing, position_embeddings)
        return cast("Tensor", states + layer.mlp(layer.post_attention_layernorm(states)))

    def attend(self, hidden_states: Tensor, packing: Packing, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """What attention adds to the scored states, [1, n, H]."""
        layer = cast("Any", self.layer)
        attention, normed = layer.self_attn, layer.input_layernorm(hidden_states)
        size = attention.head_dim
        query = _heads(attention.q_proj(normed[:, packing.score_at]), size)
        key, value = _heads(attention.k_proj(normed), size), _heads(attention.v_proj(normed), size)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        cos, sin = rotary
        context = _attend(
            attention,
            _rotate(query, cos[:, packing.score_at], sin[:, packing.score_at]),
            _rotate(key, cos, sin),
            value,
            scaling=attention.scaling,
            packing=packing,
            sliding_window=getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)),
            softcap=getattr(attention, "attn_logit_softcapping", None),
        )
        return cast("Tensor", attention.o_proj(context))


class Gemma2LastLayer(LlamaLastLayer):
    """Gemma 2: norms behind attention and feed-forward too."""

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        packing: Packing,
        position_embeddings: tuple[Tensor, Tensor],
        **__: Any,
    ) -> Tensor:
        layer = cast("Any", self.layer)
        added = self.attend(hidden_states, packing, position_embeddings)
        states = hidden_states[:, packing.score_at] + layer.post_attention_layernorm(added)
        return cast(
            "Tensor", states + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(states)))
        )


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split layout; states [1, heads, T, d], cos and sin [1, T, d]."""
    left, right = states.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    rotated = states.float() * cos[:, None].float() + turned.float() * sin[:, None].float()
    return rotated.to(states.dtype)


_LAYOUTS: dict[str, type[nn.Module]] = {
    "BertLayer": BertLastLayer,
    "RobertaLayer": BertLastLayer,
    "XLMRobertaLayer": BertLastLayer,
    "CamembertLayer": BertLastLayer,
    "ElectraLayer": BertLastLayer,
    "GteLayer": GteLastLayer,
    "ModernBertEncoderLayer": ModernBertLastLayer,
    "LlamaDecoderLayer": LlamaLastLayer,
    "MistralDecoderLayer": LlamaLastLayer,
    "Qwen2DecoderLayer": LlamaLastLayer,
    "Qwen3DecoderLayer": LlamaLastLayer,
    "GemmaDecoderLayer": LlamaLastLayer,
    "Gemma2DecoderLayer": Gemma2LastLayer,
}
