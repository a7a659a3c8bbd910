"""One attention function for packed rows, registered with transformers under a name of ours.

Every sequence of the row attends to itself alone, and to the beginning it shares with others, if there is one. CUDA in
half precision goes to torch's variable-length flash kernel; everything else runs scaled-dot-product attention over runs
of segments of equal length. Works for any stock model that passes extra keyword arguments on to its attention.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rerank_cli.models.inputs import Packing
from rerank_cli.models.packed_row import Run

PACKED = "rerank_packed"
_KERNEL_DTYPES = (torch.float16, torch.bfloat16)


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
    softcap: float | None = None,
    one_query: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention inside each sequence: query [1, heads, T, d], key and value [1, kv heads, T, d] to [1, T, heads, d].

    With `one_query`, query holds the states that are scored alone, [1, heads, n, d]. `sliding_window` follows
    transformers: tokens further apart than window - 1 do not see each other. `softcap` c bends the products of query
    and key to c · tanh(x / c).
    """
    reach = None if sliding_window is None else sliding_window - 1
    flash = packing.kernel and softcap is None and _takes(query)
    windowed = reach is not None and reach < packing.longest_keys
    if not windowed:
        reach = None
    # The kernel aligns queries to the end of their keys: a window around a first token is not to be had from it.
    around_first = one_query and not packing.causal
    if flash and not (windowed and (around_first or not _has_windows())):
        return _variable_length(query[0], key[0], value[0], packing, scaling, reach, one_query)[None], None
    return _over_runs(query[0], key[0], value[0], packing, scaling, reach, softcap, one_query)[None], None


def _takes(states: Tensor) -> bool:
    """Whether the variable-length kernel takes states of this kind."""
    return states.dtype in _KERNEL_DTYPES and states.shape[-1] % 8 == 0 and states.shape[-1] <= 256


def _variable_length(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None, reach: int | None, one: bool
) -> Tensor:
    q, k, v = (states.transpose(0, 1) for states in (query, key, value))
    keys = packing.keys
    key_offsets = packing.offsets if keys is None else keys.offsets
    if keys is not None:
        k, v = k[keys.index], v[keys.index]
    # A segment that is not scored has no query then. Were 1 said to be the most that one has, the kernel would take
    # it for what each has, where heads share keys.
    offsets, longest = (packing.scored_offsets, 2) if one else (packing.offsets, packing.longest)
    left = -1 if reach is None else reach
    right = 0 if packing.causal else left
    longest_keys = packing.longest_keys
    return cast("Tensor", kernel(q, k, v, offsets, key_offsets, longest, longest_keys, scaling, left, right))


@torch.library.custom_op("rerank::variable_length", mutates_args=())
def kernel(
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
    """torch's variable-length attention, whose parameters grew from version to version: [Tq, heads, d].

    One operator to whoever compiles the model around it.
    """
    from torch.nn.attention.varlen import varlen_attn

    known = _kernel_parameters()
    options: dict[str, Any] = {}
    if k.shape[1] != q.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            k, v = (states.repeat_interleave(q.shape[1] // states.shape[1], dim=1) for states in (k, v))
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None:
        q = q * (scaling * q.shape[-1] ** 0.5)  # torch 2.10 scales by the usual root alone
    if "window_size" in known:
        options["window_size"] = (left, right)
    else:
        options["is_causal"] = (left, right) == (-1, 0)
    # The kernel walks by strides, but for the last axis: parts of a fused projection need no copy.
    q, k, v = (states if states.stride(-1) == 1 else states.contiguous() for states in (q, k, v))
    found = cast("Tensor", varlen_attn(q, k, v, offsets, key_offsets, longest, longest_keys, **options))
    return found.contiguous()


@kernel.register_fake
def _kernel_shape(q: Tensor, *_: Any) -> Tensor:
    return q.new_empty(q.shape)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_windows() -> bool:
    return "window_size" in _kernel_parameters()


@lru_cache(maxsize=1)
def _kernel_parameters() -> frozenset[str]:
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def _over_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None,
    reach: int | None,
    softcap: float | None,
    one: bool,
) -> Tensor:
    parts = []
    for run in packing.runs:
        if one and run.sequence is None:
            continue
        q = _split(query, run.sequence or 0, run.count, 1) if one else _split(query, run.token, run.count, run.length)
        k, v = (_with_beginning(states, run) for states in (key, value))
        mask, plain_causal = _mask_of(run, packing.causal, reach, one, query.device)
        if softcap is not None:
            context = _softcapped(q, k, v, mask, scaling, softcap, plain_causal)
        else:
            context = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=plain_causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
            )
        parts.append(context.transpose(1, 2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _split(states: Tensor, start: int, count: int, length: int) -> Tensor:
    """[heads, T, d] to the run's [count, heads, length, d], a view."""
    part = states[:, start : start + count * length]
    return part.reshape(part.shape[0], count, length, part.shape[2]).transpose(0, 1)


def _with_beginning(states: Tensor, run: Run) -> Tensor:
    """Keys or values of a run, behind those of the beginning that its segments share."""
    own = _split(states, run.token, run.count, run.length)
    if run.before is None:
        return own
    start, length = run.before
    shared = states[None, :, start : start + length].expand(run.count, -1, -1, -1)
    return torch.cat((shared, own), dim=2)


def _mask_of(run: Run, causal: bool, reach: int | None, one: bool, device: torch.device) -> tuple[Tensor | None, bool]:
    """What a run's queries see, bool [queries, keys]; None where they see all, or (True) all before them."""
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
    """Which of the keys each query sees, the queries standing from place `first` on."""
    places = torch.arange(keys, device=device)
    distance = torch.arange(first, first + queries, device=device)[:, None] - places
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return seen if reach is None else seen & (distance.abs() <= reach)


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, cap: float, causal: bool
) -> Tensor:
    """Attention written out, which no fused kernel does with a cap everywhere; softmax in fp32."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (states.repeat_interleave(groups, dim=1) for states in (k, v))
    products = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    products = torch.tanh(products / cap) * cap
    if causal:
        mask = _visible.__wrapped__(0, q.shape[2], k.shape[2], True, None, q.device)
    if mask is not None:
        products = products.masked_fill(~mask, -torch.inf)
    return products.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
