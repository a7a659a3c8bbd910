import inspect
import itertools
import random

import numpy as np
import pytest
import torch
import transformers as tf
from tiny import PACKED, PADDED

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.models.attention import packed as attention
from rerank_cli.models.inputs import Packing
from rerank_cli.models.packed_row import Run

WORDS = "the panda is a bear of china that eats bamboo and sleeps ; what where when 1908 x y z".split()  # noqa: SIM905
TOLERANCE = 1e-5


def pairs(count=24, seed=3):
    rng = random.Random(seed)

    def text(most):
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))

    return [(text(8), text(rng.choice([3, 30, 90]))) for _ in range(count)] + [("what", ""), ("panda", "panda " * 900)]


def ours(folder, texts, dtype="fp32", **options):
    session = open_session(ModelOptions(str(folder), device="cpu", dtype=dtype, **options))
    queries, passages = zip(*texts, strict=True)
    prepared = session.prepare(PairTexts(queries, passages, [0] * len(texts)))
    return session, prepared, session.score(prepared)


def stock(folder, prepared):
    """The stock model, one unpadded pair at a time."""
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters and model.config.type_vocab_size > 1
    logits = np.empty(prepared.distinct_pairs, np.float32)
    for planned in prepared.rows:
        row = planned.row
        for pair, start, length in zip(planned.pairs, row.starts, row.lengths, strict=True):
            part = slice(int(start), int(start + length))
            inputs = {"input_ids": row.ids[part], "attention_mask": np.ones(length)}
            if takes_types:
                inputs["token_type_ids"] = row.types[part]
            with torch.inference_mode():
                tensors = {name: torch.from_numpy(value)[None].long() for name, value in inputs.items()}
                logits[pair] = model(**tensors).logits.item()
    return logits[prepared.distinct]


@pytest.mark.parametrize("family", PACKED)
def test_packed_rows_score_like_the_stock_model_pair_by_pair(checkpoint, family):
    session, prepared, scores = ours(checkpoint(family), pairs())
    expected = stock(checkpoint(family), prepared)
    assert session.facts.packed
    assert np.ptp(expected) > 100 * TOLERANCE
    worst = np.abs(scores - expected).max()
    print(f"worst |Δ| {worst:.1e}, largest score {np.abs(expected).max():.1f}")
    assert worst <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize("family", PADDED)
def test_models_without_the_attention_interface_are_padded_and_score_like_the_stock_model(checkpoint, family):
    session, prepared, scores = ours(checkpoint(family), pairs())
    expected = stock(checkpoint(family), prepared)
    assert not session.facts.packed
    assert np.ptp(expected) > 100 * TOLERANCE
    worst = np.abs(scores - expected).max()
    print(f"worst |Δ| {worst:.1e}, largest score {np.abs(expected).max():.1f}")
    assert worst <= TOLERANCE * max(1, np.abs(expected).max())


def test_a_type_that_nobody_named_scores_like_the_stock_model_whichever_way_it_is_fed(checkpoint):
    _, prepared, scores = ours(checkpoint("eurobert"), pairs())
    expected = stock(checkpoint("eurobert"), prepared)
    worst = np.abs(scores - expected).max()
    print(f"worst |Δ| {worst:.1e}, largest score {np.abs(expected).max():.1f}")
    assert worst <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize("family", ["bert", "modernbert-mean", "deberta-v2"])
@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_scores_do_not_depend_on_the_size_of_a_row(checkpoint, family, batch_tokens):
    texts = pairs()
    _, _, expected = ours(checkpoint(family), texts)
    _, _, scores = ours(checkpoint(family), texts, batch_tokens=batch_tokens)
    assert np.abs(scores - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


def test_scores_do_not_depend_on_the_order_of_the_pairs(checkpoint):
    texts = pairs()
    _, _, expected = ours(checkpoint("xlm-roberta"), texts)
    _, _, scores = ours(checkpoint("xlm-roberta"), texts[::-1])
    assert np.abs(scores[::-1] - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


def test_weights_are_held_in_the_dtype_asked_for_and_the_head_in_fp32(checkpoint):
    session, _, scores = ours(checkpoint("bert"), pairs())
    half = open_session(ModelOptions(str(checkpoint("bert")), device="cpu", dtype="bf16"))
    model = half._scorer.model
    texts = pairs()
    prepared = half.prepare(PairTexts(*zip(*texts, strict=True), [0] * len(texts)))
    assert {p.dtype for p in model.backbone.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model._head.parameters()} == {torch.float32}
    assert np.corrcoef(half.score(prepared), scores)[0, 1] > 0.99
    assert session.facts.dtype == "fp32"


def reference_attention(query, key, value, packing, reach=None):
    """Plain softmax attention, one sequence at a time: [heads, T, d] to [T, heads, d]."""
    out = torch.empty_like(query.transpose(0, 1))
    bounds = packing.offsets.tolist()
    for start, end in itertools.pairwise(bounds):
        q, k, v = (states[:, start:end] for states in (query, key, value))
        weights = q @ k.transpose(1, 2) * query.shape[-1] ** -0.5
        if reach is not None:
            places = torch.arange(end - start)
            weights = weights.masked_fill((places[:, None] - places).abs() > reach, -torch.inf)
        out[start:end] = (weights.softmax(-1) @ v).transpose(0, 1)
    return out


def packing_of(lengths):
    offsets = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    runs, sequence = [], 0
    for length in dict.fromkeys(lengths):
        count = lengths.count(length)
        runs.append(Run(int(offsets[sequence]), count, length, sequence))
        sequence += count
    each = torch.arange(len(offsets), dtype=torch.int32)
    return Packing(tuple(runs), offsets, max(lengths), max(lengths), offsets[:-1].long(), each)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("one_query", [False, True])
def test_attention_over_runs_is_softmax_attention_inside_each_sequence(window, one_query):
    packing = packing_of([9, 9, 5, 2, 2, 1])
    query, key, value = torch.randn(3, 2, 28, 8).unbind()
    expected = reference_attention(query, key, value, packing, None if window is None else window - 1)
    asked = query[:, packing.score_at] if one_query else query
    context, _ = attention.packed_attention(
        None, asked[None], key[None], value[None], None,
        packing=packing, scaling=8**-0.5, sliding_window=window, one_query=one_query,
    )  # fmt: skip
    torch.testing.assert_close(context[0], expected[packing.score_at] if one_query else expected)


@pytest.mark.parametrize("one_query", [False, True])
def test_the_variable_length_kernel_is_called_with_the_layout_it_documents(monkeypatch, one_query):
    """The kernel itself needs a GPU: here a stand-in with its documented contract checks what we hand it."""
    packing = packing_of([9, 9, 5, 2, 2, 1])
    query, key, value = torch.randn(3, 2, 28, 8).unbind()

    def kernel(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size=(-1, -1)):
        assert window_size == (-1, -1)
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert max_q == (2 if one_query else int(cu_q.diff().max()))
        assert max_k == int(cu_k.diff().max())
        out = torch.empty_like(q)
        for i in range(len(cu_q) - 1):
            mine, theirs = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
            weights = torch.einsum("qhd,khd->hqk", q[mine], k[theirs]) * scale
            out[mine] = torch.einsum("hqk,khd->qhd", weights.softmax(-1), v[theirs])
        return out

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(attention, "kernel_parameters", attention.kernel_parameters.__wrapped__)
    expected = reference_attention(query, key, value, packing)
    asked = query[:, packing.score_at] if one_query else query
    context = attention._variable_length(asked, key, value, packing, 8**-0.5, None, one_query)
    torch.testing.assert_close(context, expected[packing.score_at] if one_query else expected)
