"""The attention function for packed rows, registered with transformers under our own name.

Each sequence of a row attends only to itself and to the prefix that it shares with others, if any. CUDA in half
precision uses torch's variable-length flash kernel, everything else attention over runs of segments of equal length: by
torch's scaled-dot-product attention, or in bf16 on a CPU by products where they are faster. Works for any stock model
that passes extra keyword arguments on to its attention function, and under autograd.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rerank_cli.models.attention import products
from rerank_cli.models.inputs import Packing, kernel_parameters
from rerank_cli.models.packed_row import Run

PACKED = "rerank_packed"


def register() -> None:
    """Register the function with transformers as `PACKED`, without a mask function, so that it builds no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, packed_attention)


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
    softcap: float | None = None,
    one_query: bool = False,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention inside each sequence: query [1, heads, T, d], key and value [1, kv heads, T, d] to [1, T, heads, d].

    With `one_query`, query holds only the states of the scored tokens, [1, heads, n, d]. `sliding_window` is defined as
    in transformers: tokens more than window - 1 apart do not attend to each other. `softcap` c replaces each product x
    of query and key by c · tanh(x / c). With `dropout`, while training, the kernel is not used: it has none.
    """
    reach = sliding_window - 1 if sliding_window is not None and sliding_window <= packing.longest_keys else None
    query, key, value = query[0], key[0], value[0]
    flash = packing.kernel and softcap is None and not dropout and _kernel_accepts(query)
    # The kernel aligns queries with the end of their keys, so it cannot center a window on a first token.
    around_first = one_query and not packing.causal
    if flash and (reach is None or (not around_first and packing.windows)):
        return _variable_length(query, key, value, packing, scaling, reach, one_query)[None], None
    parts = []
    for run in packing.runs:
        if one_query and run.sequence is None:
            continue
        start, length = (run.sequence or 0, 1) if one_query else (run.token, run.length)
        q = _split(query, start, run.count, length)
        k, v = (_with_shared_prefix(states, run) for states in (key, value))
        mask, plain_causal = _mask(run, packing.causal, reach, one_query, query.device)
        if softcap is not None:
            context = _softcapped(q, k, v, mask, scaling, softcap, plain_causal, dropout)
        elif mask is None and not plain_causal and products.suits(q, k):
            context = products.attend(q, k, v, scaling)
        else:
            context = scaled_dot_product_attention(
                q, k, v, mask, dropout, plain_causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
            )
        parts.append(context.transpose(1, 2).flatten(0, 1))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


def _kernel_accepts(states: Tensor) -> bool:
    return states.dtype in (torch.float16, torch.bfloat16) and states.shape[-1] % 8 == 0 and states.shape[-1] <= 256


def _variable_length(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None, reach: int | None, one: bool
) -> Tensor:
    q, k, v = (states.transpose(0, 1) for states in (query, key, value))
    keys = packing.keys
    key_offsets = packing.offsets if keys is None else keys.offsets
    if keys is not None:
        k, v = k[keys.index], v[keys.index]
    # A segment that is not scored has no query here. With a maximum of 1 the kernel would assume exactly one query per
    # segment where heads share keys, so the maximum passed is 2.
    offsets, longest = (packing.scored_offsets, 2) if one else (packing.offsets, packing.longest)
    left = -1 if reach is None else reach
    right = 0 if packing.causal else left
    # torch's own operator has a gradient, the opaque one has none.
    run = flash_attention if torch.is_grad_enabled() else kernel
    return cast("Tensor", run(q, k, v, offsets, key_offsets, longest, packing.longest_keys, scaling, left, right))


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    key_offsets: Tensor,
    longest: int,
    longest_keys: int,
    scaling: float | None,
    left: int,
    right: int,
) -> Tensor:
    """Attention of any torch version by its flash kernel, [Tq, heads, d]."""
    from torch.nn.attention.varlen import varlen_attn

    known = kernel_parameters()
    options: dict[str, Any] = {}
    if k.shape[1] != q.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            k, v = (states.repeat_interleave(q.shape[1] // states.shape[1], dim=1) for states in (k, v))
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None:
        q = q * (scaling * q.shape[-1] ** 0.5)  # torch 2.10 always scales by 1 / sqrt(d)
    if "window_size" in known:
        options["window_size"] = (left, right)
    else:
        options["is_causal"] = (left, right) == (-1, 0)
    # The kernel accepts any stride except on the last axis, so slices of a fused projection need no copy.
    q, k, v = (states if states.stride(-1) == 1 else states.contiguous() for states in (q, k, v))
    found = cast("Tensor", varlen_attn(q, k, v, offsets, key_offsets, longest, longest_keys, **options))
    return found.contiguous()


# The same for torch.compile, which does not look inside.
kernel = torch.library.custom_op("rerank::variable_length", flash_attention, mutates_args=())


@kernel.register_fake
def _kernel_shape(q: Tensor, *_: Any) -> Tensor:
    return q.new_empty(q.shape)


def _split(states: Tensor, start: int, count: int, length: int) -> Tensor:
    """A view of [heads, T, d] states from `start` on as [count, heads, length, d]."""
    part = states[:, start : start + count * length]
    return part.reshape(part.shape[0], count, length, part.shape[2]).transpose(0, 1)


def _with_shared_prefix(states: Tensor, run: Run) -> Tensor:
    """Keys or values of a run, preceded by those of the prefix that its segments share."""
    own = _split(states, run.token, run.count, run.length)
    if run.before is None:
        return own
    start, length = run.before
    shared = states[None, :, start : start + length].expand(run.count, -1, -1, -1)
    return torch.cat((shared, own), dim=2)


def _mask(run: Run, causal: bool, reach: int | None, one: bool, device: torch.device) -> tuple[Tensor | None, bool]:
    """The mask of a run's queries, bool [queries, keys], and whether plain causal attention replaces it.

    (None, False) means that every query attends to every key.
    """
    before = 0 if run.before is None else run.before[1]
    keys = before + run.length
    narrow = reach is not None and reach < keys - 1
    if not narrow and (one or not causal):
        return None, False
    if not narrow and before == 0:
        return None, True
    first, queries = (keys - 1 if causal else 0, 1) if one else (before, run.length)
    make = _visible if queries * keys <= 1 << 18 else _visible.__wrapped__
    return make(first, queries, keys, causal, reach if narrow else None, device), False


@lru_cache(maxsize=64)
def _visible(first: int, queries: int, keys: int, causal: bool, reach: int | None, device: torch.device) -> Tensor:
    """The keys that each query attends to, bool [queries, keys]; the first query is at position `first`.

    Never a tensor of inference mode: autograd could not save it for the backward pass.
    """
    with torch.inference_mode(False):
        distance = torch.arange(first, first + queries, device=device)[:, None] - torch.arange(keys, device=device)
        seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
        return seen if reach is None else seen & (distance.abs() <= reach)


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, cap: float, causal: bool, drop: float
) -> Tensor:
    """Attention with a softcap, which no fused kernel supports on every device; softmax in fp32."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (states.repeat_interleave(groups, dim=1) for states in (k, v))
    products = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    products = torch.tanh(products / cap) * cap
    if causal:
        mask = _visible.__wrapped__(0, q.shape[2], k.shape[2], True, None, q.device)
    if mask is not None:
        products = products.masked_fill(~mask, -torch.inf)
    shares = products.softmax(-1, dtype=torch.float32).to(q.dtype)
    return torch.dropout(shares, drop, train=drop > 0) @ v
