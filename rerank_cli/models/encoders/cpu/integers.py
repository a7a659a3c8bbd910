"""BERT-like layers for linear layers of 8-bit integers, for a CPU."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from rerank_cli.models.encoders.cpu.parts import activated, attend
from rerank_cli.models.inputs import Packing
from rerank_cli.models.quantization.int8 import TOKENS


class InPlaceIntegerLayer(nn.Module):
    """Replaces a stock layer: states [1, T, H] to [1, T, H]. It overwrites its input.

    Query, key and value are one linear layer, so that a token is made integers once for the three. The feed-forward
    part computes few tokens at a time: its passes outside of the products then stay within the caches.
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
        context = attend(layer.attention.self, self.joined(states).chunk(3, dim=-1), packing)
        for part, found in zip(torch.split(states, TOKENS), torch.split(context, TOKENS), strict=True):
            attended = layer.attention.output.LayerNorm(part.add_(layer.attention.output.dense(found)))
            inner = activated(layer, attended)
            part.copy_(layer.output.LayerNorm(attended.add_(layer.output.dense(inner))))
        return states[None]
