"""Attention in bf16 on a CPU as product, softmax and product, over as many heads or queries as fit the caches.

On a processor with AVX-512-BF16 and without AMX this is faster than torch's fused kernel, which multiplies in small
blocks. Products are added up in fp32 and rounded to bf16 before the softmax, which computes in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rerank_cli.models.instructions import has_amx, has_bf16

_SHORTEST = 64  # tokens: below, one call of torch's kernel for all sequences is faster than several calls for each
_LONGEST = 4096  # tokens: of 8,192, torch's kernel is faster with heads of 64, which it reads fewer times
_CACHED = 1 << 21  # bytes of the products that are in work at once


def suits(query: Tensor, key: Tensor) -> bool:
    """Whether `attend` applies to these [n, heads, L, d] states without a mask, and is the faster way here."""
    applies = query.dtype == torch.bfloat16 and query.device.type == "cpu" and query.shape == key.shape
    faster = _SHORTEST <= query.shape[2] <= _LONGEST and has_bf16() and not has_amx()
    return applies and faster and not torch.is_grad_enabled()


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention without a mask of [n, heads, L, d] states, to the same shape, laid out as [n, L, heads, d].

    `scaling` is 1/√d if it is None.
    """
    count, heads, length, size = query.shape
    scaling = size**-0.5 if scaling is None else scaling
    context = query.new_empty(count, length, heads, size).transpose(1, 2)
    nothing = query.new_empty(())
    row = length * query.element_size()  # bytes of the products of one query
    together = max(1, _CACHED // (length * row))
    queries = max(_SHORTEST, _CACHED // row)
    for sequence in zip(query, key.transpose(2, 3), value, context, strict=True):
        for some, k, v, of_some in zip(*(torch.split(states, together) for states in sequence), strict=True):
            for q, out in zip(torch.split(some, queries, 1), torch.split(of_some, queries, 1), strict=True):
                products = torch.baddbmm(nothing, q, k, beta=0, alpha=scaling)
                torch.bmm(torch.softmax(products, -1, out=products), v, out=out)
    return context
