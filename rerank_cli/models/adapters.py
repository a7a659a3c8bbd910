"""LoRA adapters by peft: put on a model before it is taken apart for packed rows, and merged copies of its weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rerank_cli.errors import ModelError, UsageError

# Names of the projections of an attention block, by the naming schemes of transformers' models.
_PROJECTIONS = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("query", "key", "value"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("Wqkv",),
    ("qkv_proj",),
    ("c_attn",),
)
NAME = "default"


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Rank, scaling and dropout of low-rank adapters, and the linear layers that get one (none: the attention's).

    The defaults are those of the published recipe of bge-reranker-v2-gemma.
    """

    rank: int = 32
    alpha: float = 64.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ()


def add_lora(model: nn.Module, settings: LoraSettings, task: str | None, whole: tuple[str, ...], base: str) -> Any:
    """The PeftModel around a model whose linear layers it replaces in place.

    `task` is peft's name of the kind of model, `whole` the names of modules that are trained whole and saved beside the
    adapter, `base` the name of the model that the adapter belongs to. Raises UsageError for targets that are not there.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ModelError("LoRA needs peft. Fix: pip install 'rerank-cli[peft]', or --full") from error
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets or _projections(model)),
        modules_to_save=list(whole) or None,
        task_type=task,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about peft's own use of transformers
            warnings.filterwarnings("ignore", "fan_in_fan_out")  # it sets that itself, by the type of the layer
            made: Any = get_peft_model(model, config)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)})
        wanted = ", ".join(settings.targets)
        raise UsageError(f"--lora-targets {wanted}: no such layers (expected some of {', '.join(names)})") from error
    made.peft_config[NAME].base_model_name_or_path = base  # peft puts the folder that the model was loaded from
    return made


def _projections(model: nn.Module) -> tuple[str, ...]:
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    found = next((scheme for scheme in _PROJECTIONS if scheme[0] in names), None)
    if found is None:
        raise UsageError("LoRA: the attention of this model type is not known. Fix: --lora-targets, or --full")
    return found


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a model under its stored name; `tuner` is the layer whose adapter adds to it, if any."""

    name: str
    tensor: Tensor
    tuner: Any = None

    @torch.no_grad()
    def merged(self, whole: Callable[[Tensor], Tensor] = Tensor.detach) -> Tensor:
        """The weight with its adapter, in the weight's dtype and computed in fp32; not a copy without an adapter.

        `whole` makes a tensor of a module one that can be computed with.
        """
        tensor = whole(self.tensor)
        if self.tuner is None:
            return tensor
        down, up = (whole(part[NAME].weight).float() for part in (self.tuner.lora_A, self.tuner.lora_B))
        delta = up @ down * self.tuner.scaling[NAME]
        if self.tuner.fan_in_fan_out:
            delta = delta.T
        merged: Tensor = (tensor.float() + delta).to(tensor.dtype)
        return merged


def stored_tensors(model: nn.Module) -> list[StoredTensor]:
    """The tensors of a model under the names that its checkpoint has, whether it has adapters or not.

    The tensors stay those of the model, however it is taken apart afterwards.
    """
    return list(_stored(model))


def _stored(model: nn.Module) -> Iterator[StoredTensor]:
    modules = dict(model.named_modules())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or ".original_module." in name:
            continue
        owner, adapted, _ = name.rpartition(".base_layer.weight")
        plain = name.replace(".base_layer.", ".").replace(f".modules_to_save.{NAME}.", ".")
        yield StoredTensor(plain, tensor, modules[owner] if adapted else None)
