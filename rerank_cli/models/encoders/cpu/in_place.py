"""BERT-like layers with fewer passes over memory, for a CPU.

On a CPU each bias, activation and residual costs a pass over all states, and a new tensor is not in the caches. Here
sums are part of the matrix products, and activations and sums are computed in place. The weights are those of the stock
layer, without a copy.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from rerank_cli.models.encoders.cpu.parts import activated, attend
from rerank_cli.models.inputs import Packing


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
        states = _add_and_norm(states, attend(attention, parts, packing), layer.attention.output)
        return _add_and_norm(states, activated(layer, states), layer.output)[None]


def _add_and_norm(states: Tensor, found: Tensor, output: Any) -> Tensor:
    """LayerNorm(states + dense(found)), the sum as part of the matrix product."""
    added = states.add_(output.dense.bias).addmm_(found, output.dense.weight.t())
    return cast("Tensor", output.LayerNorm(added))
