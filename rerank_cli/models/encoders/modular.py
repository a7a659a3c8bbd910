"""Cross-encoders that sentence-transformers saves as a bare encoder and a chain of modules: ettin-reranker.

`modules.json` lists the transformer, a pooling, then dense layers and layer norms, the last with one output. It is read
as data: only modules of these kinds and activations of torch.nn are built.
Source: sentence-transformers 6.2, `base/modules/dense.py`, `sentence_transformer/modules/layer_norm.py`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint, Module, one_line
from rerank_cli.models.encoders.classifier import PackedEncoder, PaddedEncoder, takes_packed_rows
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import load_stock, packed_or_padded, stock_config


def load_modular(checkpoint: Checkpoint, placement: Placement) -> PackedEncoder | PaddedEncoder:
    """The bare encoder with its modules as head, for packed rows if possible."""
    config, mean = stock_config(checkpoint), _pooling_mode(checkpoint) == "mean"

    def packed_encoder() -> PackedEncoder:
        backbone = load_stock(AutoModel, checkpoint, placement, placement.attention)
        return PackedEncoder(backbone, _head(checkpoint, placement), placement.device, mean=mean)

    def padded_encoder() -> PaddedEncoder:
        backbone = load_stock(AutoModel, checkpoint, placement, None)
        return PaddedEncoder(_Whole(backbone, mean, _head(checkpoint, placement)), backbone, placement.device)

    packs = placement.attention is not None and takes_packed_rows(AutoModel, config)
    return packed_or_padded(packs, packed_encoder, padded_encoder, tested=config.model_type == "modernbert")


class _Whole(nn.Module):
    """Backbone, pooling and head over a padded batch, to logits [n, 1]."""

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


def _pooling_mode(checkpoint: Checkpoint) -> str:
    """`pooling_mode`, or the one that is set of the older switches `pooling_mode_cls_token` and so on."""
    config = checkpoint.modules[1].config
    older = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    mode = config.get("pooling_mode") or next((mode for name, mode in older.items() if config.get(name)), None)
    if mode not in ("cls", "mean"):
        raise ModelError(f"{checkpoint.name}: pooling {mode!r} is not supported (expected cls or mean)")
    return str(mode)


def _head(checkpoint: Checkpoint, placement: Placement) -> nn.Module:
    """The modules after the pooling, in fp32: pooled states [n, H] to logits [n]."""
    try:
        built = [_built(module, checkpoint.name) for module in checkpoint.modules[2:]]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{checkpoint.name}: a module's config.json lacks or mistakes a setting ({error})") from error
    return nn.Sequential(*built, nn.Flatten(0)).eval().requires_grad_(False).to(placement.device)


def _built(module: Module, where: str) -> nn.Module:
    config = module.config
    if module.kind == "LayerNorm":
        return _filled(nn.LayerNorm(config["dimension"]), module, "norm.", where)
    if config.get("use_residual"):
        raise ModelError(f"{where}: a dense module with a residual connection is not supported")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    path = str(config.get("activation_function", ""))
    activation: Any = getattr(nn, path.rpartition(".")[2] or "Tanh", None)
    if path and not path.startswith("torch.nn."):  # any other name would be code from the checkpoint
        activation = None
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise ModelError(f"{where}: activation {path!r} is not one of torch.nn")
    return nn.Sequential(_filled(linear, module, "linear.", where), activation())


def _filled(layer: nn.Module, module: Module, prefix: str, where: str) -> nn.Module:
    """The layer with the weights from the module's folder."""
    try:
        path = module.folder / "model.safetensors"
        weights = (
            load_file(path) if path.is_file() else torch.load(path.with_name("pytorch_model.bin"), weights_only=True)
        )
        layer.load_state_dict({name.removeprefix(prefix): value.float() for name, value in weights.items()})
    except Exception as error:  # safetensors and torch have no common base class for a corrupt file
        raise ModelError(f"{where}: {module.folder.name} cannot be loaded ({one_line(error)})") from error
    return layer
