"""BERT-like blocks with fewer passes over memory, for a CPU.

On a CPU each bias, activation and residual costs a pass over all states, and a new tensor is not in the caches. Here
sums are part of the matrix products, and activations and sums are computed in place. The weights are those of the stock
layer, without a copy; `for_integers`, which quantizes them next, joins those of query, key and value first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.activations import GELUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rerank_cli.models.inputs import Packing
from rerank_cli.models.last_layer import BERT_LAYERS
from rerank_cli.models.quantization.int8 import TOKENS


def work_in_place(backbone: nn.Module, *, for_integers: bool = False) -> int:
    """Replace the backbone's BERT-like layers; returns their number.

    With `for_integers`, the layers are made for linear layers of 8-bit integers, which `quantize` then puts into them.
    """
    layers = getattr(getattr(backbone, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        return 0
    chosen = [number for number, layer in enumerate(layers) if type(layer).__name__ in BERT_LAYERS]
    for number in chosen:
        layers[number] = InPlaceIntegerLayer(layers[number]) if for_integers else InPlaceLayer(layers[number])
    return len(chosen)


class InPlaceLayer(nn.Module):
    """Replaces a stock layer: states [1, T, H] to [1, T, H]. It overwrites its input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        layer, states = cast("Any", self.layer), hidden_states[0]
        attention = layer.attention.self
        # A key's bias adds the same number to all products of one query, and softmax cancels it.
        parts = (attention.query(states), states @ attention.key.weight.t(), attention.value(states))
        states = _add_and_norm(states, _attend(attention, parts, packing), layer.attention.output)
        return _add_and_norm(states, _activated(layer, states), layer.output)[None]


class InPlaceIntegerLayer(nn.Module):
    """The same with query, key and value as one linear layer, so that a token is made integers once for the three.

    The feed-forward part computes few tokens at a time: its passes outside of the products then stay within the caches.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention.self
        joined = [getattr(attention, name) for name in ("query", "key", "value")]
        self.joined = nn.Linear(joined[0].in_features, sum(part.out_features for part in joined), device="meta")
        for name in ("weight", "bias"):
            tensors = [getattr(part, name) for part in joined]
            setattr(self.joined, name, nn.Parameter(torch.cat(tensors), requires_grad=False))
        for name in ("query", "key", "value"):
            delattr(attention, name)
        self.layer = layer

    def forward(self, hidden_states: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        layer, states = cast("Any", self.layer), hidden_states[0]
        context = _attend(layer.attention.self, self.joined(states).chunk(3, dim=-1), packing)
        for part, found in zip(torch.split(states, TOKENS), torch.split(context, TOKENS), strict=True):
            attended = layer.attention.output.LayerNorm(part.add_(layer.attention.output.dense(found)))
            inner = _activated(layer, attended)
            part.copy_(layer.output.LayerNorm(attended.add_(layer.output.dense(inner))))
        return states[None]


def _activated(layer: Any, states: Tensor) -> Tensor:
    """The first half of the feed-forward part, [T, inner]."""
    inner, activation = layer.intermediate.dense(states), layer.intermediate.intermediate_act_fn
    if isinstance(activation, GELUActivation) and activation.act is gelu:
        return cast("Tensor", torch.ops.aten.gelu_.default(inner))
    return cast("Tensor", activation(inner))


def _attend(attention: Any, parts: Sequence[Tensor], packing: Packing) -> Tensor:
    """Query, key and value [T, H] to the attention's context, [T, H]."""
    query, key, value = (part.view(1, len(part), -1, attention.attention_head_size).transpose(1, 2) for part in parts)
    attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    context, _ = attend(attention, query, key, value, None, packing=packing, scaling=attention.scaling)
    return cast("Tensor", context.reshape(parts[0].shape))


def _add_and_norm(states: Tensor, found: Tensor, output: Any) -> Tensor:
    """LayerNorm(states + dense(found)), the sum as part of the matrix product."""
    added = states.add_(output.dense.bias).addmm_(found, output.dense.weight.t())
    return cast("Tensor", output.LayerNorm(added))
