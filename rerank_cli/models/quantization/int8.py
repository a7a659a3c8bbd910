"""Linear layers as products of 8-bit integers on a CPU: weights scaled by output channel once, states by token.

oneDNN multiplies integers several times as fast as fp32 where the processor has instructions for it (AMX, VNNI). A
token's scale is its own, so that a pair's score does not depend on the pairs beside it. Processors without VNNI add two
products in 16 bits, which overflow unless weights keep to 7 bits: theirs are halved. Source for the scheme: Dettmers
et al., "LLM.int8()" (2022), section 2.1, vector-wise quantization; for the range: oneDNN's guide to int8 inference.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rerank_cli.errors import UsageError

_TOKENS = 256  # at a time, so that the passes over them stay within the caches


def quantize_int8(linears: Iterable[tuple[nn.Module, str, nn.Linear]]) -> int:
    """Exchange the linear layers of the blocks; how many."""
    most = 127 if has_vnni() else 63
    found = list(linears)
    for owner, name, linear in found:
        setattr(owner, name, Int8Linear(linear, most))
    return len(found)


class Int8Linear(nn.Module):
    """Stands in the place of a linear layer: fp32 states [..., K] to fp32 [..., N]. `most` bounds a weight."""

    weight: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, most: int = 127) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = torch.linalg.vector_norm(weight, torch.inf, dim=1).clamp_(min=1e-12).div_(most)
        numbers = weight.div(scale[:, None]).round_().to(torch.int8)
        self.register_buffer("weight", torch.ops.onednn.qlinear_prepack(numbers, [_TOKENS, self.in_features]))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.zeros(self.out_features, dtype=torch.int32))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, states: Tensor) -> Tensor:
        rows = states.reshape(-1, self.in_features)
        found = rows.new_empty((len(rows), self.out_features))
        for start in range(0, len(rows), _TOKENS):
            part = slice(start, start + _TOKENS)
            self._product(rows[part], found[part])
        return found.view(*states.shape[:-1], self.out_features)

    def _product(self, rows: Tensor, out: Tensor) -> None:
        numbers, scale = to_int8(rows)
        weight = (self.weight, self.weight_scale, self.weight_zero)
        rest: Any = (None, 1.0, 0, torch.float32, "none", [], "")  # no bias yet, since the token's scale comes first
        product = torch.ops.onednn.qlinear_pointwise(numbers, 1.0, 0, *weight, *rest)
        if self.bias is None:
            torch.mul(product, scale, out=out)
        else:
            torch.addcmul(self.bias, product, scale, out=out)


def to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of [m, K] stretched to ±127 and rounded, and what gives it back: fp32 [m, 1].

    A row of zeros stays one; one with a number that is none has such a scale, and shows in the score.
    """
    largest = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())  # 10 times a norm's speed
    scale = largest.clamp_(min=1e-12).div_(127)
    return rows.div(scale).round_().to(torch.int8), scale


def has_vnni() -> bool:
    """Whether the processor adds products of bytes in 32 bits."""
    return bool(torch.cpu._is_vnni_supported())


def refuse_without_int8(device: torch.device) -> None:
    """Raise UsageError where there is no such product: it is tried, once, and must come out right."""
    if device.type != "cpu":
        raise UsageError(f"--quantize int8: for a CPU, this runs on {device.type}. Fix: fp8, or --device cpu")
    ones = nn.Linear(32, 32)
    nn.init.ones_(ones.weight), nn.init.ones_(ones.bias)
    try:
        right = bool(torch.allclose(Int8Linear(ones, 63)(torch.ones(32, 32)), torch.full((32, 32), 33.0)))
    except (AttributeError, RuntimeError) as error:  # a torch without oneDNN, or a processor that it has no kernel for
        raise UsageError(f"--quantize int8: not to be had here ({str(error).splitlines()[0][:200]})") from error
    if not right:
        raise UsageError(f"--quantize int8: torch {torch.__version__} multiplies integers wrongly on this processor")
