"""Llama without the causal mask, as an encoder: NVIDIA's llama-nemotron-rerank-1b-v2.

The stock backbone runs over packed rows in which each token attends to its whole sequence. The states of a sequence are
averaged, and the head's one output is divided by the temperature of config.json.
Source: `LlamaBidirectionalForSequenceClassification` of NVIDIA NeMo AutoModel 0.3.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.encoders.modular import Whole
from rerank_cli.models.encoders.scoring import PackedEncoder, PaddedEncoder
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import load_stock
from rerank_cli.models.tensors import TensorFiles

_POOLING = ("mean",)


def load_bidirectional(checkpoint: Checkpoint, placement: Placement) -> PackedEncoder | PaddedEncoder:
    """The backbone with its head, for packed rows unless the placement has no packed attention."""
    weight = TensorFiles(checkpoint).read("score.weight").float().to(placement.device)
    head = _Score(weight, float(checkpoint.config.get("temperature", 1.0)))
    backbone = load_stock(AutoModel, checkpoint, placement, placement.attention)
    _see_everything(backbone)
    if placement.attention is not None:
        return PackedEncoder(backbone, head, placement.device, _POOLING)
    return PaddedEncoder(Whole(backbone, _POOLING, 0, head), backbone, placement.device)


def _see_everything(backbone: PreTrainedModel) -> None:
    """Without a mask, which a batch of equal lengths does not get, the stock attention asks its module."""
    for module in backbone.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False


class _Score(nn.Module):
    """A linear head with one output and no bias, in fp32: states [n, H] to scores [n]."""

    def __init__(self, weight: Tensor, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.temperature = temperature

    def forward(self, states: Tensor) -> Tensor:
        return (states.float() @ self.weight.T).reshape(-1) / self.temperature
