"""BERT-like layers in bf16, whose products compute bias, GELU and residual too, for a CPU with bf16 instructions.

oneDNN adds and activates in fp32 what it has just multiplied, and rounds it to bf16 once: one pass over memory instead
of three, and a smaller error. Weights are stored in the order in which its kernel reads them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from rerank_cli.models.encoders.cpu.parts import attend, has_exact_gelu
from rerank_cli.models.inputs import Packing


class FusedLinear(nn.Module):
    """A linear layer in bf16, [T, K] to [T, N], and what follows it. `weight` is opaque and replaces the stock one."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = linear.bias

    def forward(self, states: Tensor) -> Tensor:
        return self._product(states, "none")

    def gelu(self, states: Tensor) -> Tensor:
        """GELU of the product, by the error function."""
        return self._product(states, "gelu")

    def added(self, states: Tensor, residual: Tensor) -> Tensor:
        """The product plus `residual`, [T, N]."""
        found = torch.ops.mkldnn._linear_pointwise.binary(states, residual, self.weight, self.bias, "add")
        return cast("Tensor", found)

    def _product(self, states: Tensor, then: str) -> Tensor:
        found = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, then, [], "none")
        return cast("Tensor", found)


class FusedLayer(nn.Module):
    """Replaces a stock layer in bf16: states [1, T, H] to [1, T, H]."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention.self
        for name in ("query", "key", "value"):
            setattr(attention, name, FusedLinear(getattr(attention, name)))
        for part in (layer.attention.output, layer.intermediate, layer.output):
            part.dense = FusedLinear(part.dense)
        self.layer = layer

    def forward(self, hidden_states: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        layer, states = cast("Any", self.layer), hidden_states[0]
        attention, after, output = layer.attention.self, layer.attention.output, layer.output
        context = attend(attention, [getattr(attention, name)(states) for name in ("query", "key", "value")], packing)
        states = after.LayerNorm(after.dense.added(context, states))
        dense = layer.intermediate.dense
        inner = dense.gelu(states) if has_exact_gelu(layer) else layer.intermediate.intermediate_act_fn(dense(states))
        return cast("Tensor", output.LayerNorm(output.dense.added(inner, states))[None])
