"""A stand-in for torch's variable-length attention with its documented contract (torch 2.12), for the CPU."""

import itertools

import torch


def stand_in(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
    """Queries stand at the end of their keys; a window of (left, right) reaches so far, -1 without end."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert cu_q.is_contiguous()
    assert cu_k.is_contiguous()
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    assert int(cu_q.diff().max()) <= max_q
    assert int(cu_k.diff().max()) <= max_k
    assert (int(cu_q[-1]), int(cu_k[-1])) == (len(q), len(k))
    assert enable_gqa == (k.shape[1] != q.shape[1])
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
    left, right = window_size
    out = torch.empty_like(q)
    for (start, end), (first, last) in zip(itertools.pairwise(cu_q), itertools.pairwise(cu_k), strict=True):
        mine, theirs = slice(start, end), slice(first, last)
        keys, queries = int(last - first), int(end - start)
        distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
        seen = ((distance <= left) | (left < 0)) & ((-distance <= right) | (right < 0))
        products = torch.einsum("qhd,khd->hqk", q[mine], k[theirs]) * scale
        out[mine] = torch.einsum("hqk,khd->qhd", products.masked_fill(~seen, -torch.inf).softmax(-1), v[theirs])
    return out
