"""Operations counted by formula against those that torch counts while the model runs."""

import json
import math

import numpy as np
import pytest
import torch
from tiny import PACKED, PARITY
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.profiling.flops import costs_of
from rerank_cli.engine.session import open_session
from rerank_cli.models.compiled import CompiledModel
from rerank_cli.models.inputs import Frame
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts import profiles

DECODERS = ("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "granite", "phi", "cohere", "olmo2", "gemma3")


def model_of(folder, **options):
    family = FamilyOptions(**options)
    return open_session(ModelOptions(str(folder), device="cpu", dtype="fp32", family=family))._scorer.model


def row_of(lengths, parents=None, **more):
    ids = (np.arange(sum(lengths)) % 40 + 5).astype(np.int32)
    return TokenRow(ids, np.zeros_like(ids), np.array(lengths), None if parents is None else np.array(parents), **more)


def counted(model, row):
    """Operations of the matrix products by torch's count: of weights, and of attention with all that masks hide."""

    def fused(x, *_, out_shape=None, **__):
        return 2 * math.prod(x) * out_shape[-1]

    def in_place(_, left, right, **__):
        return 2 * math.prod(left) * right[-1]

    mapping = {torch.ops.mkldnn._linear_pointwise: fused, torch.ops.aten.addmm_: in_place}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, sdpa_kernel(SDPBackend.MATH):
        model.score(row)
    found = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    attention = sum(count for op, count in found.items() if "bmm" in op)
    return sum(found.values()) - attention, attention


def hidden(row, costs):
    """Pairs of query and key that a mask hides, counted one by one, over all layers."""
    return sum(
        _hidden_in(row, block.reach, costs, last=costs.trimmed and block is costs.blocks[-1]) for block in costs.blocks
    )


def _hidden_in(row, reach, costs, last):
    total = 0
    for segment, (length, before) in enumerate(zip(row.lengths.tolist(), row.prefixes.tolist(), strict=True)):
        if last and segment not in row.scored:
            continue
        keys = np.arange(before + length)
        queries = keys[before:]
        if last:
            queries = keys[-1:] if costs.causal else keys[:1]
        distance = queries[:, None] - keys
        seen = distance >= 0 if costs.causal else np.ones_like(distance, dtype=bool)
        if reach is not None:
            seen &= np.abs(distance) <= reach
        total += int((~seen).sum())
    return total


def agrees(model, row):
    costs = costs_of(model)
    weights, attention = counted(model, row)
    assert costs.of(row).done == weights + attention - 4 * costs.width * hidden(row, costs)
    return costs


@pytest.mark.parametrize("family", PACKED)
def test_an_encoders_row_counts_as_torch_counts_it(checkpoint, family):
    costs = agrees(model_of(checkpoint(family)), row_of([19, 19, 7, 4]))
    assert costs.trimmed == (family not in {"distilbert", "modernbert-mean"})


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoders_row_with_a_shared_beginning_counts_as_torch_counts_it(decoder, name):
    model = model_of(decoder(name), profile=profiles.BGE)
    if not model.packed:
        assert costs_of(model) is None
        return
    agrees(model, row_of([9, 30, 30, 12], [-1, 0, 0, -1]))


def test_the_plain_model_works_out_every_layer_of_every_pair_by_itself(decoder):
    costs = costs_of(model_of(decoder("llama"), profile=profiles.BGE))
    shared = row_of([9, 30, 30, 12], [-1, 0, 0, -1])
    weights = sum(block.keys + block.others for block in costs.blocks)
    seen = sum(length * (length + 1) // 2 for length in (39, 39, 12))
    assert costs.of(shared).nominal == 2 * (90 * weights + 3 * costs.head) + 3 * 4 * costs.width * seen
    assert costs.of(shared).nominal == costs.of(shared.unshared()).nominal > costs.of(shared).done


def test_layers_above_the_cutoff_are_not_counted():
    config = json.loads((PARITY / "minicpm-layerwise" / "config.json").read_text())
    below, top = config["start_layer"], config["num_hidden_layers"]
    model = model_of(PARITY / "minicpm-layerwise", cutoff_layers=(below, top - 1))
    assert len(agrees(model, row_of([9, 30, 30, 12], [-1, 0, 0, -1])).blocks) == top - 1


def test_merged_tokens_are_counted_once():
    row = row_of([40, 40, 21], [-1, -1, -1], passage_at=np.array([10, 10, 10]), closing=3)
    plain = costs_of(model_of(PARITY / "gemma2-lightweight")).of(row)
    model = model_of(PARITY / "gemma2-lightweight", compress_layers=(1,), compress_ratio=2)
    weights, _ = counted(model, row)
    costs = costs_of(model)
    assert costs.of(row).done < plain.done
    per_token = [block.keys + block.others for block in costs.blocks]
    shorter = 101 - 13 - 13 - 4
    assert weights == 2 * (101 * per_token[0] + shorter * sum(per_token[1:]) + 3 * costs.head)
    assert costs.of(row).done > weights


def test_a_compiled_model_counts_as_the_model_in_it(checkpoint):
    model, row = model_of(checkpoint("bert")), row_of([19, 7])
    assert costs_of(CompiledModel(model, Frame(64, 32), "eager")).of(row) == costs_of(model).of(row)


def test_what_cannot_be_counted_is_not_guessed(checkpoint):
    assert costs_of(model_of(checkpoint("deberta-v2"))) is None
