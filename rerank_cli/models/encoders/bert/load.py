"""Reads a BERT-like classifier from its safetensors file, if nothing about it is unusual."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.encoders.bert.encoder import BertEncoder, BertHead
from rerank_cli.models.encoders.bert.shape import BertShape, shape_of
from rerank_cli.models.encoders.scoring import PackedEncoder
from rerank_cli.models.inputs import Placement
from rerank_cli.models.reading.labels import Label, labels_of
from rerank_cli.models.tensors import refuse_non_finite

Made = TypeVar("Made")
Places = dict[str, tuple[nn.Module, str]]

_WEIGHTS = "model.safetensors"
_HEADS = {  # transformers' names of the head's two layers
    "bert": {"dense": "bert.pooler.dense", "out_proj": "classifier"},
    "roberta": {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
}


def load_bert(checkpoint: Checkpoint, placement: Placement, label: Label | None = None) -> PackedEncoder | None:
    """The classifier with weights in the target dtype, its head in fp32; None if it is left to transformers' classes.

    None unless `model.safetensors` has every tensor in the shape that config.json states, and none of a further layer:
    transformers' classes then load it, or say what is wrong. Raises ModelError for weights that are not finite.
    """
    shape = shape_of(checkpoint)
    if shape is None or not (checkpoint.folder / _WEIGHTS).is_file():
        return None
    labels = len(labels_of(checkpoint))
    encoder, head = without_weights(lambda: (BertEncoder(shape), BertHead(shape, labels, label)))
    places = _places(encoder, head, shape)
    if not _fill(places, checkpoint, placement):
        return None
    refuse_non_finite(((name, module.get_parameter(own)) for name, (module, own) in places.items()), checkpoint)
    for module in (encoder, head):
        module.eval().requires_grad_(False)
    return PackedEncoder(encoder, head.float(), placement.device, ("cls",))


def without_weights(make: Callable[[], Made]) -> Made:
    """Modules whose tensors are only shapes."""
    with torch.device("meta"), _Unfilled():
        return make()


class _Unfilled(TorchFunctionMode):
    """Modules made inside get no first values. On the meta device torch would import its compiler to compute them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return None
        return func(*args, **(kwargs or {}))


def _places(encoder: nn.Module, head: nn.Module, shape: BertShape) -> Places:
    """The module and the name in it of each tensor, by the name in the file."""
    kind = "roberta" if shape.is_roberta else "bert"
    places = {f"{kind}.{name}": (encoder, name) for name in encoder.state_dict()}
    for name in head.state_dict():
        layer, _, which = name.partition(".")
        places[f"{_HEADS[kind][layer]}.{which}"] = (head, name)
    return places


def _fill(places: Places, checkpoint: Checkpoint, placement: Placement) -> bool:
    """Put the file's tensors into the modules; False, with the modules as they were, if the file does not suit them."""
    found: dict[nn.Module, dict[str, Tensor]] = {}
    try:
        with safe_open(checkpoint.folder / _WEIGHTS, framework="pt") as file:
            names = set(file.keys())
            if not names.issuperset(places) or any(_is_layer(name) for name in names.difference(places)):
                return False
            for name, (module, own_name) in places.items():
                tensor = file.get_tensor(name)
                if tensor.shape != module.get_parameter(own_name).shape or not tensor.is_floating_point():
                    return False
                found.setdefault(module, {})[own_name] = tensor.to(placement.of_weights, placement.dtype)
    except (SafetensorError, OSError):
        return False
    for module, tensors in found.items():
        module.load_state_dict(tensors, assign=True)
    return True


def _is_layer(name: str) -> bool:
    return re.search(r"\.layer\.\d+\.", name) is not None
