"""Selects the layers of an encoder that are computed otherwise on a CPU, and how."""

from __future__ import annotations

import torch
from torch import nn

from rerank_cli.models.encoders.cpu.fused import FusedLayer
from rerank_cli.models.encoders.cpu.in_place import InPlaceLayer
from rerank_cli.models.encoders.cpu.integers import InPlaceIntegerLayer
from rerank_cli.models.instructions import has_bf16
from rerank_cli.models.last_layer import BERT_LAYERS


def replace_layers(backbone: nn.Module, *, for_integers: bool = False) -> int:
    """Replace the backbone's BERT-like layers, but for a trimmed last one; returns their number.

    With `for_integers` the layers are made for linear layers of 8-bit integers, which `quantize` then puts into them.
    """
    layers = getattr(getattr(backbone, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        return 0
    fuses = has_bf16() and torch._C._has_mkldnn
    chosen = [number for number, layer in enumerate(layers) if type(layer).__name__ in BERT_LAYERS]
    for number in chosen:
        layer = layers[number]
        if for_integers:
            layers[number] = InPlaceIntegerLayer(layer)
        elif next(layer.parameters()).dtype == torch.bfloat16 and fuses:
            layers[number] = FusedLayer(layer)
        else:
            layers[number] = InPlaceLayer(layer)
    return len(chosen)
