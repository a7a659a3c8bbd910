"""One attention function for packed rows, registered with transformers under a name of ours.

Every sequence of the row attends to itself alone. CUDA in half precision goes to torch's variable-length flash kernel;
everything else runs scaled-dot-product attention over runs of sequences of equal length. Works for any stock model
that passes extra keyword arguments on to its attention.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rerank_cli.models.rows import Packing, Run

PACKED = "rerank_packed"


def register() -> str:
    """Make the function known to transformers (once is enough, more does no harm) and return its name.

    No mask function is registered with it, so transformers builds no mask.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, packed_attention)
    return PACKED


def packed_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    one_query: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """Bidirectional attention inside each sequence: query [1, heads, T, d] to context [1, T, heads, d].

    With `one_query`, query holds each sequence's first token alone, [1, heads, n, d]. `sliding_window` follows
    transformers: tokens further apart than window - 1 do not see each other.
    """
    reach = None if sliding_window is None else sliding_window - 1
    flash = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16)
    attend = _variable_length if flash else _over_runs
    return attend(query[0], key[0], value[0], packing, scaling, reach, one_query)[None], None


def _variable_length(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None, reach: int | None, one: bool
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    offsets, longest = packing.offsets, packing.longest
    query_offsets = torch.arange(len(offsets), dtype=torch.int32, device=offsets.device) if one else offsets
    if one and reach is not None and reach < longest:
        # The kernel aligns windows to the end of a sequence, ours lie at its start.
        return _over_runs(query, key, value, packing, scaling, reach, one)
    q, k, v = (states.transpose(0, 1).contiguous() for states in (query, key, value))
    options: dict[str, Any] = {"scale": scaling}
    if reach is not None:
        options["window_size"] = (reach, reach)
    longest_query = 1 if one else longest
    return cast("Tensor", varlen_attn(q, k, v, query_offsets, offsets, longest_query, longest, **options))


def _over_runs(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None, reach: int | None, one: bool
) -> Tensor:
    parts = [_run(query, key, value, run, scaling, reach, one) for run in packing.runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _run(
    query: Tensor, key: Tensor, value: Tensor, run: Run, scaling: float | None, reach: int | None, one: bool
) -> Tensor:
    """Context [tokens of the run, heads, d]; the views cost no copies."""
    k, v = (_split(states, run.token, run.count, run.length) for states in (key, value))
    q = _split(query, run.sequence, run.count, 1) if one else _split(query, run.token, run.count, run.length)
    mask = None
    if reach is not None and reach < run.length - 1:
        places = torch.arange(run.length, device=q.device)
        mask = (places[: q.shape[2], None] - places[None, :]).abs() <= reach
    context = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    return context.transpose(1, 2).flatten(0, 1)


def _split(states: Tensor, start: int, count: int, length: int) -> Tensor:
    """[heads, T, d] to the run's [count, heads, length, d]."""
    part = states[:, start : start + count * length]
    return part.reshape(part.shape[0], count, length, part.shape[2]).transpose(0, 1)
