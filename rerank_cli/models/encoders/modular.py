"""Cross-encoders that sentence-transformers saves as a bare encoder and a chain of modules: ettin-reranker.

`modules.json` lists the transformer, a pooling, then dense layers and layer norms, the last with one output. It is read
as data: only modules of these kinds and activations of torch.nn are built.
Source: sentence-transformers 6.2, `base/modules/dense.py`, `sentence_transformer/modules/layer_norm.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint, Module, one_line
from rerank_cli.models.encoders.classifier import takes_packed_rows
from rerank_cli.models.encoders.pooling import pooled
from rerank_cli.models.encoders.scoring import PackedEncoder, PaddedEncoder
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import load_stock, packed_or_padded, stock_config
from rerank_cli.models.registry import is_causal
from rerank_cli.models.stated import pooling_modes
from rerank_cli.models.tensors import weights_of_module


def load_modular(checkpoint: Checkpoint, placement: Placement, skip: int = 0) -> PackedEncoder | PaddedEncoder:
    """The bare encoder with its modules as head, for packed rows if possible. `skip`: see `pooling.pooled`."""
    config, modes = stock_config(checkpoint), pooling_modes(checkpoint)

    def packed_encoder() -> PackedEncoder:
        backbone = load_stock(AutoModel, checkpoint, placement, placement.attention)
        return PackedEncoder(backbone, module_head(checkpoint, placement), placement.device, modes, skip)

    def padded_encoder() -> PaddedEncoder:
        backbone = load_stock(AutoModel, checkpoint, placement, None)
        whole = Whole(backbone, modes, skip, module_head(checkpoint, placement))
        return PaddedEncoder(whole, backbone, placement.device)

    packs = placement.attention is not None and not is_causal(checkpoint) and takes_packed_rows(AutoModel, config)
    return packed_or_padded(packs, packed_encoder, padded_encoder, tested=config.model_type == "modernbert")


class Whole(nn.Module):
    """Backbone, pooling and head over a right-padded batch, to logits [n]."""

    def __init__(self, backbone: nn.Module, modes: Sequence[str], skip: int, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.modes = modes
        self.skip = skip
        self.head = head

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        states = self.backbone(attention_mask=attention_mask, **inputs).last_hidden_state
        vectors = pooled(states[attention_mask.bool()], attention_mask.sum(dim=1), self.modes, self.skip)
        return cast("Tensor", self.head(vectors))


def module_head(checkpoint: Checkpoint, placement: Placement) -> nn.Module:
    """The modules after the pooling, in fp32: pooled vectors [n, H · modes] to logits [n]."""
    built: list[nn.Module] = []
    at = "sentence_embedding"
    try:
        for module in checkpoint.modules[2:]:
            read = str(module.config.get("module_input_name") or "sentence_embedding")
            if read != at:
                raise ModelError(f"{checkpoint.name}: {module.folder.name} reads {read!r} (expected {at!r})")
            at = str(module.config.get("module_output_name") or read)
            built.append(_built(module, checkpoint))
    except (KeyError, TypeError) as error:
        raise ModelError(f"{checkpoint.name}: a module's config.json lacks or mistakes a setting ({error})") from error
    return nn.Sequential(*built, nn.Flatten(0)).eval().requires_grad_(False).to(placement.of_weights)


class _Normalize(nn.Module):
    """Vectors of length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, p=2, dim=-1)


def _built(module: Module, checkpoint: Checkpoint) -> nn.Module:
    config, where = module.config, checkpoint.name
    if module.kind == "Dropout":
        return nn.Identity()
    if module.kind == "Normalize":
        return _Normalize()
    weights = weights_of_module(module.folder, checkpoint)
    if module.kind == "LayerNorm":
        return _filled(nn.LayerNorm(config["dimension"]), weights, "norm.", module, where)
    if config.get("use_residual"):
        raise ModelError(f"{where}: a dense module with a residual connection is not supported")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    path = str(config.get("activation_function", ""))
    activation: Any = getattr(nn, path.rpartition(".")[2] or "Tanh", None)
    if path and not path.startswith("torch.nn."):  # any other name would be code from the checkpoint
        activation = None
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise ModelError(f"{where}: activation {path!r} is not one of torch.nn")
    return nn.Sequential(_filled(linear, weights, "linear.", module, where), activation())


def _filled(layer: nn.Module, weights: Mapping[str, Tensor], prefix: str, module: Module, where: str) -> nn.Module:
    """The layer with the tensors of its module's folder."""
    try:
        layer.load_state_dict({name.removeprefix(prefix): value.float() for name, value in weights.items()})
    except RuntimeError as error:  # other names or shapes
        raise ModelError(f"{where}: {module.folder.name} cannot be loaded ({one_line(error)})") from error
    return layer
