"""Linear layers as 8-bit integer products on a CPU: weights scaled per output channel, once; states per token.

oneDNN multiplies integers several times as fast as fp32 if the processor has instructions for it (AMX, VNNI). The scale
of a token depends on that token only, so a pair's score does not depend on the other pairs of its row. VNNI multiplies
unsigned by signed integers, so states are stored with 128 added: for signed ones oneDNN took its reference code on a
processor without AMX, hundreds of times as slow. Processors without VNNI add two products in 16 bits, which overflow
unless weights have at most 7 bits: there they are limited to ±63. Source of the scheme: Dettmers et al., "LLM.int8()"
(2022), section 2.1, vector-wise quantization; of the ranges: oneDNN's guide to int8 inference.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from rerank_cli.errors import UsageError
from rerank_cli.models.instructions import has_vnni

SEVEN_BITS, EIGHT_BITS = 63, 127
TOKENS = 256  # at a time, so that the passes over them stay within the caches
ZERO = 128  # what a state of zero is stored as


def remarks() -> tuple[str, ...]:
    """A line for people if `--quantize int8` is likely to gain nothing on this processor, which has no VNNI."""
    if has_vnni() or platform.machine().lower() not in {"x86_64", "amd64"}:
        return ()
    measured = "int8 was slower than fp32 on a processor without AVX-512 VNNI, as this one is"
    return (f"{measured}; rerank bench --dtypes int8 compares them here",)


def quantize_int8(linears: Iterable[tuple[nn.Module, str, nn.Linear]]) -> int:
    """Replace the linear layers; returns their number."""
    found = list(linears)
    for owner, name, linear in found:
        setattr(owner, name, Int8Linear(linear))
    return len(found)


class Int8Linear(nn.Module):
    """Replaces a linear layer: states [..., K] to [..., N] in their own dtype, fp32 or bf16.

    Weights are in ±`most`, which by default is what this processor multiplies without overflow.
    """

    weight: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, most: int | None = None) -> None:
        super().__init__()
        most = most or largest_weight()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = torch.linalg.vector_norm(weight, torch.inf, dim=1).clamp_(min=1e-12).div_(most)
        numbers = weight.div(scale[:, None]).round_().to(torch.int8)
        self.register_buffer("weight", packed(numbers))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.zeros(self.out_features, dtype=torch.int32))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, states: Tensor) -> Tensor:
        rows = states.reshape(-1, self.in_features)
        if len(rows) <= TOKENS:
            found = self._product(rows).to(states.dtype)
        else:
            found = rows.new_empty((len(rows), self.out_features))
            for part, out in zip(torch.split(rows, TOKENS), torch.split(found, TOKENS), strict=True):
                out.copy_(self._product(part))
        return found.view(*states.shape[:-1], self.out_features)

    def _product(self, rows: Tensor) -> Tensor:
        """fp32 [m, N] of states [m, K]."""
        numbers, scale = to_uint8(rows)
        product = multiply(numbers, self.weight, self.weight_scale, self.weight_zero)
        return product.mul_(scale) if self.bias is None else torch.addcmul(self.bias, product, scale, out=product)


def largest_weight() -> int:
    """The largest number that this processor multiplies with 8 bits without overflow."""
    return EIGHT_BITS if has_vnni() else SEVEN_BITS


def packed(weight: Tensor) -> Tensor:
    """int8 [N, K] in the order in which oneDNN's kernel reads it."""
    return cast("Tensor", torch.ops.onednn.qlinear_prepack(weight, [TOKENS, weight.shape[1]]))


def multiply(numbers: Tensor, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """fp32 [m, N] of uint8 [m, K], which stand for 128 less, and a packed weight with its scales and zeros [N]."""
    rest: Any = (None, 1.0, 0, torch.float32, "none", [], "")  # a bias is added after the token's scale
    return cast("Tensor", torch.ops.onednn.qlinear_pointwise(numbers, 1.0, ZERO, weight, scale, zero, *rest))


def to_uint8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of [m, K] scaled to ±127, rounded and moved by `ZERO`, and the factors that undo it: fp32 [m, 1].

    A row of zeros stays zero; a row that contains inf or NaN has such a factor, which shows in the score.
    """
    exact = rows.float()
    largest = torch.maximum(exact.amax(1, keepdim=True), exact.amin(1, keepdim=True).neg_())  # 10 times a norm's speed
    scale = largest.clamp_(min=1e-12).div_(ZERO - 1)
    scaled = torch.mul(exact, scale.reciprocal(), out=exact if exact is not rows else None)
    signed = scaled.round_().to(torch.int8)  # twice the speed of a conversion to unsigned integers
    return signed.view(torch.uint8).bitwise_xor_(ZERO), scale


def refuse_without_int8(device: torch.device) -> None:
    """Raise UsageError unless a trial product of int8 numbers is right on this device."""
    if device.type != "cpu":
        raise UsageError(
            f"--quantize int8: needs a CPU, this runs on {device.type}. Fix: --quantize fp8, or --device cpu"
        )
    ones = nn.Linear(32, 32)
    for parameter in ones.parameters():
        nn.init.ones_(parameter)
    try:
        right = bool(torch.allclose(Int8Linear(ones, SEVEN_BITS)(torch.ones(32, 32)), torch.full((32, 32), 33.0)))
    except (AttributeError, RuntimeError) as error:  # torch without oneDNN, or without a kernel for this processor
        raise UsageError(f"--quantize int8: not available here ({str(error).splitlines()[0][:200]})") from error
    if not right:
        raise UsageError(f"--quantize int8: torch {torch.__version__} multiplies integers wrongly on this processor")
