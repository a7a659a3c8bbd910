"""Cross-encoders that sentence-transformers keeps as a bare encoder and a chain of modules: ettin-reranker.

`modules.json` lists them: the transformer, a pooling, then dense layers and layer norms of which the last gives one
number. Read as data; only modules of these kinds and activations of torch.nn are built.
Source: sentence-transformers 6.2, `base/modules/dense.py`, `sentence_transformer/modules/layer_norm.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint, Module
from rerank_cli.models.encoders.classifier import PackedEncoder, PaddedEncoder, agree, feeds_packed, has_segments
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import load_stock, one_line, stock_config

_POOLINGS = ("cls", "mean")


def load_modular(checkpoint: Checkpoint, placement: Placement) -> PackedEncoder | PaddedEncoder:
    """The bare encoder, packed where it can be, with its modules as head."""
    _, pooling, *others = checkpoint.modules
    mean = _pooling_mode(pooling, checkpoint) == "mean"
    packs = placement.attention is not None and feeds_packed(AutoModel, stock_config(checkpoint))

    def padded() -> PaddedEncoder:
        backbone = load_stock(AutoModel, checkpoint, placement, None)
        whole = _Whole(backbone, mean, _head(others, checkpoint).to(placement.device))
        return PaddedEncoder(whole, backbone, placement.device, takes_types=has_segments(backbone))

    if not packs:
        return padded()
    backbone = load_stock(AutoModel, checkpoint, placement, placement.attention)
    head = _head(others, checkpoint).to(placement.device)
    packed = PackedEncoder(backbone, head, placement.device, mean=mean, takes_types=has_segments(backbone))
    if backbone.config.model_type == "modernbert":
        return packed
    plain = padded()
    return packed if agree(packed, plain) else plain


class _Logit(nn.Module):
    """Pooled states [n, H] in fp32 through the modules to logits [n]."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.modules_in_order = nn.Sequential(*modules)

    def forward(self, states: Tensor) -> Tensor:
        logits: Tensor = self.modules_in_order(states)
        return logits.reshape(-1)


class _Whole(nn.Module):
    """Backbone, pooling and head over a padded batch, with the forward of a classification model."""

    def __init__(self, backbone: nn.Module, mean: bool, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.mean = mean
        self.head = head

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        states = self.backbone(attention_mask=attention_mask, **inputs).last_hidden_state.float()
        if not self.mean:
            return cast("Tensor", self.head(states[:, 0]))
        weights = attention_mask[:, :, None].float()
        return cast("Tensor", self.head((states * weights).sum(dim=1) / weights.sum(dim=1)))


def _pooling_mode(module: Module, checkpoint: Checkpoint) -> str:
    """`pooling_mode`, or the one of the older switches `pooling_mode_cls_token` and so on that is on."""
    config = module.config
    older = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    mode = config.get("pooling_mode") or next((mode for name, mode in older.items() if config.get(name)), None)
    if mode not in _POOLINGS:
        raise ModelError(f"{checkpoint.name}: pooling {mode!r} is not supported (expected {' or '.join(_POOLINGS)})")
    return str(mode)


def _head(modules: list[Module], checkpoint: Checkpoint) -> _Logit:
    make = {"Dense": _dense, "LayerNorm": _norm}
    try:
        built = [make[module.kind](module, checkpoint) for module in modules]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{checkpoint.name}: a module's config.json lacks or mistakes a setting ({error})") from error
    return _Logit(built).eval().requires_grad_(False)


def _dense(module: Module, checkpoint: Checkpoint) -> nn.Module:
    config = module.config
    if config.get("use_residual"):
        raise ModelError(f"{checkpoint.name}: a dense module with a residual connection is not supported")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    _fill(linear, module.folder, "linear.", checkpoint)
    return nn.Sequential(linear, _activation(str(config.get("activation_function", "")), checkpoint))


def _norm(module: Module, checkpoint: Checkpoint) -> nn.Module:
    norm = nn.LayerNorm(module.config["dimension"])
    _fill(norm, module.folder, "norm.", checkpoint)
    return norm


def _activation(path: str, checkpoint: Checkpoint) -> nn.Module:
    """An activation of torch.nn by its dotted name; anything else would be code from the checkpoint."""
    name = path.rpartition(".")[2] or "Tanh"
    made: Any = getattr(nn, name, None)
    if (path and not path.startswith("torch.nn.")) or not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise ModelError(f"{checkpoint.name}: activation {path!r} is not one of torch.nn")
    return made()


def _fill(module: nn.Module, folder: Path, prefix: str, checkpoint: Checkpoint) -> None:
    try:
        path = folder / "model.safetensors"
        found = load_file(path) if path.is_file() else torch.load(folder / "pytorch_model.bin", weights_only=True)
        module.load_state_dict({name.removeprefix(prefix): value.float() for name, value in found.items()})
    except Exception as error:  # safetensors and torch share no root for "this file is no good"
        raise ModelError(f"{checkpoint.name}: {folder.name} cannot be loaded ({one_line(error)})") from error
