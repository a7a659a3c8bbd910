"""What `benchmarks/gpu_rehearsal.py` looks for, on any build of torch: it finds planted faults, and none of ours."""

import sys
from pathlib import Path

import pytest
import torch
from jina import make_jina

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.models.encoders.pooling import pooled
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("without the benchmarks", allow_module_level=True)
sys.path.append(str(BENCHMARKS))
from operators import Watch, tensors_of  # noqa: E402


def watched(run):
    """The watch over a function of states [6, 8], and its faults; the device is torch's own without numbers."""
    watch = Watch("meta", is_pinned=lambda _: False)
    states = torch.empty(6, 8, device="meta")
    with watch:
        try:
            run(states)
        except RuntimeError:  # what shapes alone cannot answer: the watch has seen it before
            if not watch.faults:
                raise
    return watch, " ".join(watch.faults)


PLANTED = {
    "_local_scalar_dense waits": [lambda x: x.sum().item(), lambda x: bool((x > 0).all())],
    "nonzero waits": [lambda x: x.nonzero(), lambda x: torch.where(x > 0)],
    "masked_select waits": [lambda x: x.masked_select(x > 0)],
    "index waits": [lambda x: x[x[:, 0] > 0]],
    "repeat_interleave waits": [lambda x: torch.repeat_interleave(torch.arange(6, device="meta"), x[:, 0].long())],
    "_to_copy to the host": [lambda x: x.cpu()],
    "takes a tensor of the host": [lambda x: x[torch.zeros(3, dtype=torch.long)]],
    "computes on the host": [lambda _: torch.arange(6) + 1],
}


@pytest.mark.parametrize(("fault", "run"), [(fault, run) for fault, runs in PLANTED.items() for run in runs])
def test_a_planted_fault_is_found(fault, run):
    _, faults = watched(run)
    assert fault in faults


def test_what_does_not_wait_is_counted_and_no_fault():
    def run(x):
        weight, at = torch.empty(8, 8, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
        y = torch.nn.functional.linear(x, weight).view(3, 2, 8).transpose(0, 1)  # one kernel, and views
        return y[0][at].relu() * 2.0  # three more

    watch, faults = watched(run)
    assert not faults
    assert watch.kernels == 4 + 1  # and the zeros
    assert watch.calls["mm"] == 1


@pytest.mark.parametrize("pinned", [True, False])
def test_scores_come_back_only_into_pinned_memory(pinned):
    watch = Watch("meta", is_pinned=lambda _: pinned)
    with watch:
        torch.empty(6).copy_(torch.empty(6, device="meta"), non_blocking=True)
    assert watch.fetched == 1
    assert bool(watch.faults) is not pinned


def test_a_tensor_that_was_left_on_the_host_is_found_wherever_it_is_held():
    class Model:
        __slots__ = ("parts",)

    model, layer = Model(), torch.nn.Linear(2, 2)
    layer.table = {"scale": [torch.ones(3)]}
    model.parts = (layer,)
    found = dict(tensors_of(model))
    assert set(found) == {
        ".parts[0]._parameters[weight]", ".parts[0]._parameters[bias]", ".parts[0].table[scale][0]",
    }  # fmt: skip


@pytest.mark.parametrize("skip", [0, 3])
@pytest.mark.parametrize("mode", ["cls", "lasttoken", "mean", "max", "weightedmean", "mean_sqrt_len_tokens"])
def test_pooling_never_waits_for_the_device(mode, skip):
    found = []
    _, faults = watched(lambda x: found.append(pooled(x, torch.full((2,), 3, device="meta"), (mode, mode), skip).shape))
    assert not faults
    assert found == [(2, 16)]


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_a_packed_decoder_never_waits_for_the_device(decoder, name):
    family = FamilyOptions(profile=profiles.BGE)
    session = open_session(ModelOptions(str(decoder(name)), device="cpu", dtype="fp32", family=family))
    prepared = session.prepare(PairTexts(["what is a panda?"] * 3, ["a bear", "hi", "bamboo"], [0] * 3))
    watch = Watch(device="cpu")
    with watch:
        session._scorer.model.score(prepared.rows[0].row)
    assert session.facts.packed
    assert not watch.faults


def test_a_list_never_waits_for_the_device(tmp_path):
    session = open_session(ModelOptions(str(make_jina(tmp_path)), device="cpu", dtype="fp32"))
    prepared = session.prepare(PairTexts(["what is a panda?"] * 3, ["a bear", "hi", "bamboo"], [0] * 3))
    watch = Watch(device="cpu")
    with watch:
        scores = session._scorer.model.score(prepared.rows[0].row)
    assert not watch.faults
    assert len(scores) == prepared.rows[0].row.sequences
    assert scores.isfinite().all()
