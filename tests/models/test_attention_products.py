"""Attention as product, softmax and product, against torch's own in fp32."""

import pytest
import torch
from test_packed_rows import ours, pairs
from torch.nn.functional import scaled_dot_product_attention

from rerank_cli.models.attention import products as by_products
from rerank_cli.models.attention.products import attend, suits


def states(count, heads, length, size, seed=5):
    """Query, key and value in bf16, [count, heads, length, size], laid out as a model's projections are."""
    torch.manual_seed(seed)
    parts = torch.randn(3, count, length, heads, size).bfloat16().unbind()
    return [part.transpose(1, 2) for part in parts]


@pytest.mark.parametrize(("count", "heads", "length", "size"), [(1, 12, 64, 32), (3, 4, 100, 64), (2, 5, 700, 16)])
@pytest.mark.parametrize("scaling", [None, 0.4])
@pytest.mark.parametrize("share", [3, 0.3])  # three heads at a time, or three tenths of the queries of one
def test_it_is_the_attention_of_the_same_states(count, heads, length, size, scaling, share, monkeypatch):
    monkeypatch.setattr(by_products, "_CACHED", int(share * length * length * 2))
    query, key, value = states(count, heads, length, size)
    with torch.inference_mode():
        found = attend(query, key, value, scaling)
        exact, magnitude = (
            scaled_dot_product_attention(query.float(), key.float(), values, scale=scaling)
            for values in (value.float(), value.float().abs())
        )
        products = (query.float() @ key.float().transpose(2, 3)).abs().max() * (scaling or size**-0.5)
    # Steps of bf16 are 2^-8: half of one of a product in a share and in their sum, and of the share and the result.
    allowed = magnitude * (products * 2**-8 + 2**-7) + 1e-6
    assert found.shape == query.shape
    assert found.transpose(1, 2).is_contiguous()
    assert exact.abs().max() > 0.5
    assert ((found.float() - exact).abs() <= allowed).all()


def test_it_is_used_for_whole_bf16_sequences_of_some_length_on_processors_where_it_is_faster(monkeypatch):
    query, key, _ = states(1, 2, 64, 8)
    for bf16, amx, expected in ((True, False, True), (True, True, False), (False, False, False)):
        monkeypatch.setattr(by_products, "has_bf16", lambda bf16=bf16: bf16)
        monkeypatch.setattr(by_products, "has_amx", lambda amx=amx: amx)
        with torch.inference_mode():
            assert suits(query, key) is expected
    monkeypatch.setattr(by_products, "has_bf16", lambda: True)
    monkeypatch.setattr(by_products, "has_amx", lambda: False)
    with torch.inference_mode():
        assert suits(query, key)
        assert not suits(query.float(), key.float())
        assert not suits(query[:, :, :63], key[:, :, :63])
        assert not suits(query[:, :, :1], key)
        assert not suits(*(part.repeat_interleave(65, dim=2) for part in (query, key)))  # 4,160 tokens
        assert not suits(query, key[:, :1])
    assert not suits(query, key)  # it has no gradient


def test_scores_in_bf16_are_as_near_the_exact_ones_as_with_torchs_kernel(checkpoint, monkeypatch):
    folder = checkpoint("xlm-roberta")
    _, _, exact = ours(folder, pairs())
    errors, scores = [], []
    for used in (True, False):
        monkeypatch.setattr(by_products, "has_bf16", lambda used=used: used)
        monkeypatch.setattr(by_products, "has_amx", lambda: False)
        scores.append(ours(folder, pairs(), dtype="bf16")[2])
        errors.append(abs(scores[-1] - exact).mean())
    assert (scores[0] != scores[1]).any()
    assert errors[0] < 1.5 * errors[1]
