"""What is asked of CUDA to fetch scores, in which order: told by stand-ins, since it takes a card to do it."""

from types import SimpleNamespace

import numpy as np
import torch

from rerank_cli.engine.pending import fetch


def test_scores_on_the_cpu_are_there():
    assert fetch(torch.tensor([1.5, 2.0])).wait().tolist() == [1.5, 2.0]


def test_scores_on_a_card_are_copied_into_pinned_memory_and_waited_for_by_an_event_behind_the_copy(monkeypatch):
    told = []

    class Pinned:
        def copy_(self, source, *, non_blocking):
            told.append(("copy", source.name, non_blocking))

        def cpu(self):
            told.append("read")
            return torch.tensor([1.0, 2.0])

    class Event:
        def __init__(self, *, blocking):
            assert blocking

        def record(self, stream):
            told.append(("record", stream))

        def synchronize(self):
            told.append("wait")

    def empty(shape, *, dtype, pin_memory):
        assert (shape, dtype, pin_memory) == ((2,), torch.float32, True)
        return Pinned()

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device.index}")
    device = SimpleNamespace(type="cuda", index=1)
    started = fetch(SimpleNamespace(device=device, shape=(2,), dtype=torch.float32, name="scores"))
    assert told == [("copy", "scores", True), ("record", "stream of 1")]
    np.testing.assert_array_equal(started.wait(), [1, 2])
    assert told[2:] == ["wait", "read"]
