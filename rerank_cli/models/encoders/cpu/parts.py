"""What the replaced layers have in common: attention over projected states, and the activation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import gelu

from rerank_cli.models.attention.packed import packed_attention
from rerank_cli.models.inputs import Packing


def attend(attention: Any, parts: Sequence[Tensor], packing: Packing) -> Tensor:
    """Query, key and value [T, H] to the attention's context, [T, H]."""
    query, key, value = (part.view(1, len(part), -1, attention.attention_head_size).transpose(1, 2) for part in parts)
    context, _ = packed_attention(attention, query, key, value, None, packing=packing, scaling=attention.scaling)
    return context.reshape(parts[0].shape)


def activated(layer: Any, states: Tensor) -> Tensor:
    """The first half of the feed-forward part, [T, inner]."""
    inner = layer.intermediate.dense(states)
    if has_exact_gelu(layer):
        return cast("Tensor", torch.ops.aten.gelu_.default(inner))
    return cast("Tensor", layer.intermediate.intermediate_act_fn(inner))


def has_exact_gelu(layer: Any) -> bool:
    """Whether the layer's activation is GELU by the error function."""
    activation = layer.intermediate.intermediate_act_fn
    return getattr(activation, "act", activation) is gelu
