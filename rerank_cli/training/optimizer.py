"""AdamW with a schedule, and gradients clipped to a norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rerank_cli.choices import Schedule
from rerank_cli.errors import UsageError

if TYPE_CHECKING:
    from rerank_cli.training.sharding import Sharding


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """`warmup` is a share of all steps below 1, else a number of steps; `clip` 0 leaves gradients as they are.

    Tensors of one dimension (norms and biases) are not decayed.
    """

    lr: float = 2e-5
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup: float = 0.1
    schedule: Schedule = Schedule.LINEAR
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "warmup", "clip"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"--{name.replace('_', '-')} {value:g}: expected 0 or more")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, numbered from 0, of a run with this many steps.

        It rises linearly over the warm-up, then stays, falls linearly to 0, or falls along half a cosine.
        """
        warmup = math.ceil(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        falling = {
            Schedule.CONSTANT: 1.0,
            Schedule.LINEAR: 1 - done,
            Schedule.COSINE: (1 + math.cos(math.pi * done)) / 2,
        }
        return self.lr * falling[self.schedule]


_STEP = "step"  # AdamW keeps this count on the CPU


class Optimizer:
    """Changes the trained tensors of a model, by name; its state can be saved and loaded by those names.

    With `sharding`, the tensors are those of a sharded model.
    """

    def __init__(
        self, trained: Mapping[str, nn.Parameter], settings: OptimizerSettings, sharding: Sharding | None = None
    ) -> None:
        self.settings = settings
        self._norm: Callable[[list[nn.Parameter]], float] = sharding.norm if sharding else gradient_norm
        self._part_of: Callable[[Tensor, nn.Parameter], Tensor] = sharding.part_of if sharding else _on_device_of
        self._names = list(trained)
        self._weights = list(trained.values())
        decayed = [weight for weight in self._weights if weight.dim() > 1]
        others = [weight for weight in self._weights if weight.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=settings.lr, betas=settings.betas, eps=settings.eps
        )

    def step(self, rate: float) -> float:
        """Clip, change the tensors, clear the gradients; returns the norm of all gradients before clipping."""
        norm = self.norm()
        if 0 < self.settings.clip < norm:
            scale = self.settings.clip / (norm + 1e-6)
            for weight in self._weights:
                if weight.grad is not None:
                    weight.grad.mul_(scale)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self.clear()
        return norm

    def norm(self) -> float:
        """The Euclidean norm of all gradients together."""
        return self._norm(self._weights)

    def clear(self) -> None:
        self._adam.zero_grad(set_to_none=True)

    def allocate(self) -> None:
        """Make its tensors before the first step, so that they count when memory is measured. Changes no step."""
        for weight in self._weights:
            if weight not in self._adam.state:
                zeros = {part: torch.zeros_like(weight) for part in ("exp_avg", "exp_avg_sq")}
                self._adam.state[weight] = {"step": torch.tensor(0.0), **zeros}

    def state(self) -> dict[str, Tensor]:
        """Its tensors, named by the trained tensor that they belong to, as `NAME:exp_avg`."""
        found: dict[str, Tensor] = {}
        for name, weight in zip(self._names, self._weights, strict=True):
            found |= {f"{name}:{part}": value for part, value in self._adam.state.get(weight, {}).items()}
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned. Raises KeyError or ValueError if it is of other tensors."""
        parts: dict[str, dict[str, Tensor]] = {}
        for full, value in state.items():
            name, _, part = full.rpartition(":")
            parts.setdefault(name, {})[part] = value
        known = dict(zip(self._names, self._weights, strict=True))
        for name, values in parts.items():
            weight = known[name]
            if values["exp_avg"].shape != weight.shape:
                raise ValueError(f"{name}: {tuple(values['exp_avg'].shape)} instead of {tuple(weight.shape)}")
            self._adam.state[weight] = {
                part: value.clone() if part == _STEP else self._part_of(value, weight) for part, value in values.items()
            }


def _on_device_of(value: Tensor, weight: nn.Parameter) -> Tensor:
    return value.to(weight.device, copy=True)


def gradient_norm(weights: list[nn.Parameter]) -> float:
    """The Euclidean norm of all gradients together."""
    norms = [weight.grad.float().norm() for weight in weights if weight.grad is not None]
    return float(torch.stack([norm.to(norms[0].device) for norm in norms]).norm()) if norms else 0.0
