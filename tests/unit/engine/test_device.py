"""Which device a name stands for, and what is said of one that is not there."""

import pytest
import torch

from rerank_cli.engine.device import choose_device
from rerank_cli.errors import UsageError


@pytest.fixture
def cards(monkeypatch):
    """A function: so many CUDA devices, and a torch that is built with or without CUDA."""

    def set_up(count, built=True):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return set_up


def refusal(name, flag="--device"):
    with pytest.raises(UsageError) as caught:
        choose_device(name, flag)
    return str(caught.value)


def test_a_torch_without_cuda_is_named(cards):
    cards(0, built=False)
    what = f"this torch ({torch.__version__}) is built without CUDA. Fix: --device cpu, or install torch with CUDA"
    assert refusal("cuda") == f"--device cuda: {what}"


def test_a_machine_without_a_card_is_told_how_to_look(cards):
    cards(0)
    assert refusal("cuda:0", "--devices").startswith(
        "--devices cuda:0: torch finds no CUDA device. Fix: --devices cpu;"
    )


def test_cards_that_are_hidden_are_told(cards, monkeypatch):
    cards(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "(CUDA_VISIBLE_DEVICES is '')" in refusal("cuda")


def test_a_number_beyond_the_last_card_names_the_last(cards):
    cards(2)
    assert refusal("cuda:2") == "--device cuda:2: torch finds 2 CUDA devices, numbered from 0. Fix: --device cuda:1"
    assert choose_device("cuda:1") == torch.device("cuda:1")


def test_an_apple_gpu_that_is_not_there(cards):
    cards(0)
    assert refusal("mps") == "--device mps: torch finds no Apple GPU. Fix: --device cpu"
