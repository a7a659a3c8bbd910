"""Decoders of many types against the stock causal model with all its logits, one unpadded pair at a time."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles

TOLERANCE = 1e-5
PACKED = ("gemma", "gemma2", "llama", "llama-scaled", "mistral", "qwen2", "qwen3", "granite")
OTHERS = ("phi", "cohere", "olmo2", "gemma3", "gpt2")
DIFFERENCE = dataclasses.replace(profiles.BGE, name="difference", no="No")


def texts():
    words = "the panda is a bear of china that eats bamboo and sleeps ; what where when 1908 x y z".split()  # noqa: SIM905
    rng = np.random.default_rng(5)

    def text(most):
        return " ".join(rng.choice(words, rng.integers(1, most)))

    queries = [text(8) for _ in range(4)]
    pairs = [(str(rng.choice(queries)), text(int(rng.choice([3, 30, 90])))) for _ in range(24)]
    return [*pairs, ("what", ""), ("panda", "panda " * 900)]


def ours(folder, profile=None, **options):
    family = FamilyOptions(profile=profile)
    session = open_session(ModelOptions(str(folder), device="cpu", dtype="fp32", family=family, **options))
    queries, passages = zip(*texts(), strict=True)
    prepared = session.prepare(PairTexts(queries, passages, [0] * len(queries)))
    return session, prepared, session.score(prepared)


def stock(folder, prepared, answers):
    """The logits of the answers at the last token, their difference if there are two."""
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return logits_of(model, prepared, answers)


def logits_of(model, prepared, answers):
    found = np.empty(prepared.distinct_pairs, np.float32)
    for planned in prepared.rows:
        row = planned.row.unshared()
        for pair, start, length in zip(planned.pairs, row.starts, row.lengths, strict=True):
            ids = torch.from_numpy(row.ids[start : start + length])[None].long()
            with torch.inference_mode():
                logits = model(input_ids=ids).logits[0, -1]
            found[pair] = logits[answers[0]] - (logits[answers[1]] if len(answers) > 1 else 0)
    return found[prepared.distinct]


@pytest.mark.parametrize("name", PACKED + OTHERS)
@pytest.mark.parametrize("share_prefix", [True, False])
def test_scores_are_the_stock_models_logits(decoder, name, share_prefix):
    folder = decoder(name)
    session, prepared, scores = ours(folder, DIFFERENCE, share_prefix=share_prefix)
    answers = [int(session._tokenizer.tokenizer.ids(word)[0]) for word in ("Yes", "No")]
    expected = stock(folder, prepared, answers)
    if name in PACKED:
        assert session.facts.packed
    assert any((planned.row.parents >= 0).any() for planned in prepared.rows) == (share_prefix and session.facts.packed)
    assert np.ptp(expected) > 100 * TOLERANCE
    worst = np.abs(scores - expected).max()
    print(f"worst |Δ| {worst:.1e}, largest {np.abs(expected).max():.1f}, packed {session.facts.packed}")
    assert worst <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
def test_scores_do_not_depend_on_the_size_of_a_row(decoder, batch_tokens):
    _, _, expected = ours(decoder("gemma2"))
    _, prepared, scores = ours(decoder("gemma2"), batch_tokens=batch_tokens)
    assert len(prepared.rows) == {1: 26, 100_000: 1}.get(batch_tokens, len(prepared.rows))
    assert np.abs(scores - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


def test_a_row_in_halves_scores_the_same(decoder):
    session, prepared, _ = ours(decoder("qwen3"), profiles.BGE, batch_tokens=100_000)
    row = prepared.rows[0].row
    halves = [part for half in row.halves() for part in half.halves()]
    found = np.concatenate([session._scorer.model.score(part) for part in halves])
    whole = session._scorer.model.score(row).numpy()
    assert np.abs(found - whole).max() <= TOLERANCE * np.abs(whole).max()


def test_a_decoder_with_a_label_is_read_at_its_last_token(decoder, tmp_path):
    config = tf.Qwen3Config.from_pretrained(decoder("qwen3"), num_labels=1)
    torch.manual_seed(3)
    model = tf.Qwen3ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((decoder("qwen3") / file).read_bytes())
    session, prepared, scores = ours(tmp_path, profiles.BGE)
    assert (session.facts.family, session.facts.profile) == ("decoder-classifier", "bge")
    for planned in prepared.rows:
        row = planned.row.unshared()
        for pair, start, length in zip(planned.pairs, row.starts, row.lengths, strict=True):
            ids = torch.from_numpy(row.ids[start : start + length])[None].long()
            with torch.inference_mode():
                expected = model(input_ids=ids).logits.item()
            assert abs(scores[np.flatnonzero(prepared.distinct == pair)[0]] - expected) <= TOLERANCE * max(
                1, abs(expected)
            )


@pytest.mark.parametrize("stored", ["safetensors", "torch"])
def test_an_answer_beyond_the_vocabulary_is_refused(decoder, tmp_path, stored):
    weights = load_file(decoder("qwen2") / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"][:5].clone()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((decoder("qwen2") / file).read_bytes())
    if stored == "torch":
        torch.save(weights, tmp_path / "pytorch_model.bin")
    else:
        save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="has 5 rows"):
        ours(tmp_path, profiles.BGE)
