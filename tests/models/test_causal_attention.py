"""Causal attention over rows with shared beginnings, against softmax attention written out."""

import dataclasses

import numpy as np
import pytest
import torch

from rerank_cli.models import inputs as feeding
from rerank_cli.models.attention import packed as attention
from rerank_cli.models.inputs import model_inputs
from rerank_cli.models.packed_row import TokenRow

HEADS, KEY_HEADS, SIZE = 4, 2, 8
CPU = torch.device("cpu")
# One beginning of 6 tokens with three ends of 5, 5 and 2; one sequence by itself; a beginning of 3 with one end of 1.
LENGTHS = np.array([6, 5, 5, 2, 9, 3, 1])
PARENTS = np.array([-1, 0, 0, 0, -1, -1, 5])
SHARED = TokenRow(np.arange(31, dtype=np.int32), np.zeros(31, np.int32), LENGTHS, PARENTS)
PLAIN = TokenRow(np.arange(31, dtype=np.int32), np.zeros(31, np.int32), LENGTHS)
# Windows that are wider than any segment, but not than one with its beginning.
DEEP = TokenRow(np.arange(12, dtype=np.int32), np.zeros(12, np.int32), np.array([6, 3, 3]), np.array([-1, 0, 0]))
ROWS = {"plain": PLAIN, "shared": SHARED, "deep": DEEP}


def states(row):
    torch.manual_seed(4)
    query = torch.randn(HEADS, row.tokens, SIZE)
    key, value = torch.randn(2, KEY_HEADS, row.tokens, SIZE).unbind()
    return query, key, value


def written_out(row, query, key, value, window=None, softcap=None, scaling=SIZE**-0.5):
    """[T, heads, d]: each token over the tokens before it in its own sequence."""
    key, value = (part.repeat_interleave(HEADS // KEY_HEADS, dim=0) for part in (key, value))
    out = torch.empty(row.tokens, HEADS, SIZE)
    parents = np.full(len(row.lengths), -1) if row.parents is None else row.parents
    for segment, parent in enumerate(parents):
        own = list(range(row.starts[segment], row.starts[segment] + row.lengths[segment]))
        before = [] if parent < 0 else list(range(row.starts[parent], row.starts[parent] + row.lengths[parent]))
        for place, token in enumerate(own):
            seen = (before + own[: place + 1])[-(window or 1000) :]
            products = torch.einsum("hd,hkd->hk", query[:, token], key[:, seen]) * scaling
            if softcap:
                products = softcap * torch.tanh(products / softcap)
            out[token] = torch.einsum("hk,hkd->hd", products.softmax(-1), value[:, seen])
    return out


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("window", [None, 4, 8])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("one_query", [False, True])
def test_attention_over_runs(row, window, softcap, one_query):
    packing = model_inputs(row, CPU, causal=True).packing
    query, key, value = states(row)
    expected = written_out(row, query, key, value, window, softcap)
    asked = query[:, packing.score_at] if one_query else query
    context, _ = attention.packed_attention(
        None, asked[None], key[None], value[None], None,
        packing=packing, scaling=SIZE**-0.5, sliding_window=window, softcap=softcap, one_query=one_query,
    )  # fmt: skip
    torch.testing.assert_close(context[0], expected[packing.score_at] if one_query else expected)


def keys_of(row, monkeypatch):
    """What CUDA gets, made on the CPU."""
    monkeypatch.setattr(feeding, "has_kernel", lambda _: True)
    return feeding.model_inputs(row, CPU, causal=True).packing.keys


# torch 2.10 knows no windows: such attention goes over runs there.
VERSIONS = [("2.10", None), ("2.11", None), ("2.11", 4), ("2.12", None), ("2.12", 4), ("2.12", 8)]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize(("version", "window"), VERSIONS)
def test_the_variable_length_kernel_is_called_with_the_layout_it_documents(
    monkeypatch, row, window, one_query, version
):
    """The kernel itself needs a GPU: here a stand-in with its documented contract checks what we hand it."""
    packing = model_inputs(row, CPU, causal=True).packing
    if row.parents is not None:
        packing = dataclasses.replace(packing, keys=keys_of(row, monkeypatch))
    query, key, value = states(row)

    def attend(q, k, v, cu_q, cu_k, max_q, max_k, scale, left):
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert (max_q, max_k) == (2 if one_query else int(cu_q.diff().max()), int(cu_k.diff().max()))
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
        out = torch.empty_like(q)
        for i in range(len(cu_q) - 1):
            mine, theirs = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
            queries, keys = mine.stop - mine.start, theirs.stop - theirs.start
            distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
            seen = (distance >= 0) & ((distance <= left) | (left < 0))
            products = torch.einsum("qhd,khd->hqk", q[mine], k[theirs]) * scale
            weights = products.masked_fill(~seen, -torch.inf).softmax(-1)
            out[mine] = torch.einsum("hqk,khd->qhd", weights, v[theirs])
        return out

    def of_2_10(q, k, v, cu_q, cu_k, max_q, max_k, is_causal=False):
        assert is_causal
        assert k.shape[1] == q.shape[1]
        return attend(q, k, v, cu_q, cu_k, max_q, max_k, SIZE**-0.5, -1)

    def of_2_11(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        assert window_size[1] == 0
        assert k.shape[1] == q.shape[1]
        return attend(q, k, v, cu_q, cu_k, max_q, max_k, scale, window_size[0])

    def of_2_12(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
        assert window_size[1] == 0
        assert enable_gqa == (k.shape[1] != q.shape[1])
        return attend(q, k, v, cu_q, cu_k, max_q, max_k, scale, window_size[0])

    kernel = {"2.10": of_2_10, "2.11": of_2_11, "2.12": of_2_12}[version]
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    attention.kernel_parameters.cache_clear()
    monkeypatch.setattr(attention, "kernel_parameters", attention.kernel_parameters.__wrapped__)
    asked = query[:, packing.score_at] if one_query else query
    reach = None if window is None else window - 1
    scaling = 0.2
    expected = written_out(row, query, key, value, window, scaling=scaling)
    context = attention._variable_length(asked, key, value, packing, scaling, reach, one_query)
    torch.testing.assert_close(context, expected[packing.score_at] if one_query else expected)
