"""Blocks of BERT's layout with fewer passes over memory, for a CPU in fp32.

On a CPU a bias, an activation and a residual each cost a pass over all states, and a fresh tensor is memory that the
caches do not hold. Here sums go into the matrix products, and activations and sums are worked in place. The weights
are those of the stock layer; nothing is copied.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.activations import GELUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rerank_cli.models.inputs import Packing

_LAYOUTS = {"BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer"}


def work_in_place(backbone: nn.Module) -> int:
    """Exchange the backbone's layers of a known layout; returns how many."""
    layers = getattr(getattr(backbone, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        return 0
    chosen = [number for number, layer in enumerate(layers) if type(layer).__name__ in _LAYOUTS]
    for number in chosen:
        layers[number] = InPlaceLayer(layers[number])
    return len(chosen)


class InPlaceLayer(nn.Module):
    """Stands in the place of a stock layer: states [1, T, H] to [1, T, H]. It overwrites what it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        layer, states = cast("Any", self.layer), hidden_states[0]
        states = _add_and_norm(states, self._attend(states, packing), layer.attention.output)
        inner = _activated(layer.intermediate.dense(states), layer.intermediate.intermediate_act_fn)
        return _add_and_norm(states, inner, layer.output)[None]

    def _attend(self, states: Tensor, packing: Packing) -> Tensor:
        """States [T, H] to what their heads read, [T, H]."""
        attention = cast("Any", self.layer).attention.self
        # A key's bias adds the same to all products of one query, which softmax takes away again.
        parts = (attention.query(states), states @ attention.key.weight.t(), attention.value(states))
        query, key, value = (
            part.view(1, len(states), -1, attention.attention_head_size).transpose(1, 2) for part in parts
        )
        attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
        context, _ = attend(attention, query, key, value, None, packing=packing, scaling=attention.scaling)
        return cast("Tensor", context.reshape(states.shape))


def _add_and_norm(states: Tensor, found: Tensor, output: Any) -> Tensor:
    """LayerNorm(states + dense(found)), the sum inside the matrix product."""
    dense, norm = output.dense, output.LayerNorm
    added = states.add_(dense.bias).addmm_(found, dense.weight.t())
    return cast("Tensor", norm(added))


def _activated(states: Tensor, activation: nn.Module) -> Tensor:
    if isinstance(activation, GELUActivation) and activation.act is gelu:
        return torch.ops.aten.gelu_.default(states)  # type: ignore[no-any-return]
    return cast("Tensor", activation(states))
