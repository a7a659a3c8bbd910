import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rerank_cli.choices import LayerHeads
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.models.options import FamilyOptions
from rerank_cli.run.verify import kendall_tau

PARITY = Path(__file__).parent / "parity"
CASES = json.loads((PARITY / "expected.json").read_text())["cases"]
TOLERANCE = 2e-5
OF_FAMILY = ("prompt", "cutoff_layers", "compress_layers", "compress_ratio")


def scores_of(folder, pairs, options, **place):
    family = {name: options[name] for name in OF_FAMILY if name in options}
    family = {name: tuple(value) if isinstance(value, list) else value for name, value in family.items()}
    family |= {name: place.pop(name) for name in ("layer_heads", "softcap") if name in place}
    lengths = {name: options.get(name) for name in ("max_length", "query_max_length")}
    place = {"device": "cpu", "dtype": "fp32"} | place
    session = open_session(ModelOptions(str(folder), family=FamilyOptions(**family), **lengths, **place))
    queries, passages = zip(*pairs, strict=True)
    scores = session.score(session.prepare(PairTexts(queries, passages, [0] * len(queries)))).astype(np.float64)
    return 1 / (1 + np.exp(-scores)) if options.get("normalize") else scores


def named(case):
    return f"{case['checkpoint']} {case['options']}"


@pytest.mark.parametrize("case", CASES, ids=named)
@pytest.mark.parametrize("share_prefix", [True, False])
def test_scores_are_those_of_the_reference_implementation(case, share_prefix):
    scores = scores_of(PARITY / case["checkpoint"], case["pairs"], case["options"], share_prefix=share_prefix)
    expected = np.array(case["scores"]).T
    worst = np.abs(scores.reshape(expected.shape) - expected).max()
    print(f"worst |Δ| {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=named)
@pytest.mark.parametrize(("dtype", "share", "tau"), [("bf16", 0.1, 0.85), ("fp16", 0.01, 0.97)])
def test_half_precision_ranks_nearly_as_the_reference_in_fp32(case, dtype, share, tau):
    expected = np.array(case["scores"][-1])
    scores = scores_of(PARITY / case["checkpoint"], case["pairs"], case["options"], dtype=dtype)
    scores = scores if scores.ndim == 1 else scores[:, -1]
    worst, agreement = np.abs(scores - expected).max(), kendall_tau(scores, expected)
    print(f"{dtype}: worst |Δ| {worst:.4f} of a range of {np.ptp(expected):.2f}, Kendall τ {agreement:.3f}")
    assert worst <= share * np.ptp(expected)
    assert agreement >= tau


LAST = {case["checkpoint"]: case for case in CASES}


def test_layers_come_in_ascending_order_whatever_was_asked_first():
    case = LAST["minicpm-layerwise"]
    pairs = case["pairs"]
    both = scores_of(PARITY / "minicpm-layerwise", pairs, {"cutoff_layers": [5, 2, 5]})
    for column, layer in enumerate((2, 5)):
        alone = scores_of(PARITY / "minicpm-layerwise", pairs, {"cutoff_layers": [layer]})
        assert np.abs(both[:, column] - alone).max() <= TOLERANCE


def test_heads_of_a_lightweight_model_are_taken_by_rank_or_as_trained(tmp_path):
    """With head j = layer 2 + j, the trained head of layer 4 is the third, the reference's is the first."""
    folder, pairs = PARITY / "gemma2-lightweight", LAST["gemma2-lightweight"]["pairs"]
    options = {"cutoff_layers": [4]}
    trained = scores_of(folder, pairs, options, layer_heads=LayerHeads.TRAINED)
    assert np.abs(trained - scores_of(folder, pairs, options)).max() > 0.01
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.0.linear_head.weight"] = weights["lm_head.2.linear_head.weight"].clone()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(weights, tmp_path / "model.safetensors")
    assert np.abs(trained - scores_of(tmp_path, pairs, options)).max() <= TOLERANCE


def test_the_softcap_of_attention_is_a_switch():
    folder, pairs = PARITY / "gemma2-lightweight", LAST["gemma2-lightweight"]["pairs"]
    plain = scores_of(folder, pairs, {})
    capped = scores_of(folder, pairs, {}, softcap=True)
    assert np.abs(capped - plain).max() > 1e-6
    assert np.abs(capped - plain).max() < 0.5


@pytest.mark.parametrize("stored", ["bf16", "several files", "torch"])
def test_weights_are_folded_however_they_are_stored(tmp_path, stored):
    folder, pairs = PARITY / "minicpm-layerwise", LAST["minicpm-layerwise"]["pairs"]
    weights = load_file(folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    expected = scores_of(folder, pairs, {"cutoff_layers": [4]})
    if stored == "bf16":
        save_file({name: weight.bfloat16() for name, weight in weights.items()}, tmp_path / "model.safetensors")
    elif stored == "torch":
        torch.save(weights, tmp_path / "pytorch_model.bin")
    else:
        names = sorted(weights)
        files = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(names)}
        for file in set(files.values()):
            save_file({name: weights[name] for name in names if files[name] == file}, tmp_path / file)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    worst = np.abs(scores_of(tmp_path, pairs, {"cutoff_layers": [4]}) - expected).max()
    assert worst <= (0.05 if stored == "bf16" else TOLERANCE)


def test_layers_above_the_top_cutoff_are_neither_loaded_nor_missed(tmp_path):
    folder, pairs = PARITY / "minicpm-layerwise", LAST["minicpm-layerwise"]["pairs"]
    weights = load_file(folder / "model.safetensors")
    kept = {
        name: weight for name, weight in weights.items() if not name.startswith(("model.layers.4", "model.layers.5"))
    }
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(kept, tmp_path / "model.safetensors")
    worst = np.abs(
        scores_of(tmp_path, pairs, {"cutoff_layers": [4]}) - scores_of(folder, pairs, {"cutoff_layers": [4]})
    ).max()
    assert worst <= TOLERANCE
    session = open_session(
        ModelOptions(str(tmp_path), device="cpu", dtype="fp32", family=FamilyOptions(cutoff_layers=(3,)))
    )
    assert len(session._scorer.model.backbone.layers) == 3
