"""BERT-like blocks with fewer passes over memory, for a CPU in fp32.

On a CPU each bias, activation and residual costs a pass over all states, and a new tensor is not in the caches. Here
sums are part of the matrix products, and activations and sums are computed in place. The weights are those of the stock
layer, without a copy.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.activations import GELUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rerank_cli.models.inputs import Packing
from rerank_cli.models.last_layer import BERT_LAYERS


def work_in_place(backbone: nn.Module) -> int:
    """Replace the backbone's BERT-like layers; returns their number."""
    layers = getattr(getattr(backbone, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        return 0
    chosen = [number for number, layer in enumerate(layers) if type(layer).__name__ in BERT_LAYERS]
    for number in chosen:
        layers[number] = InPlaceLayer(layers[number])
    return len(chosen)


class InPlaceLayer(nn.Module):
    """Replaces a stock layer: states [1, T, H] to [1, T, H]. It overwrites its input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        layer, states = cast("Any", self.layer), hidden_states[0]
        states = _add_and_norm(states, _attend(layer.attention.self, states, packing), layer.attention.output)
        inner, activation = layer.intermediate.dense(states), layer.intermediate.intermediate_act_fn
        if isinstance(activation, GELUActivation) and activation.act is gelu:
            inner = torch.ops.aten.gelu_.default(inner)
        else:
            inner = activation(inner)
        return _add_and_norm(states, inner, layer.output)[None]


def _attend(attention: Any, states: Tensor, packing: Packing) -> Tensor:
    """States [T, H] to the attention's context, [T, H]."""
    # A key's bias adds the same number to all products of one query, and softmax cancels it.
    parts = (attention.query(states), states @ attention.key.weight.t(), attention.value(states))
    size = attention.attention_head_size
    query, key, value = (part.view(1, len(states), -1, size).transpose(1, 2) for part in parts)
    attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    context, _ = attend(attention, query, key, value, None, packing=packing, scaling=attention.scaling)
    return cast("Tensor", context.reshape(states.shape))


def _add_and_norm(states: Tensor, found: Tensor, output: Any) -> Tensor:
    """LayerNorm(states + dense(found)), the sum as part of the matrix product."""
    added = states.add_(output.dense.bias).addmm_(found, output.dense.weight.t())
    return cast("Tensor", output.LayerNorm(added))
