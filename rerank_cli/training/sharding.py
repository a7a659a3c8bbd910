"""A model whose weights, gradients and optimizer state are divided over several processes, by torch's `fully_shard`.

Each process has a part of each tensor. The tensors of a layer are gathered while it computes, all others (embeddings,
norms, heads) while a row is computed. Gradients are added by FSDP as they are made. So all processes have to make the
same calls in the same order: one with fewer rows computes a short row whose loss counts 0. Files have whole tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from rerank_cli.errors import UsageError
from rerank_cli.models.adapters import StoredTensor
from rerank_cli.models.last_layer import TrimmedLayer
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.trainable import Trainable
from rerank_cli.training.launcher import ShardOptions
from rerank_cli.training.processes import Processes


@dataclass(frozen=True, slots=True)
class Sharding:
    """A sharded model. All processes have to call a method that says so, in the same order.

    `layers` are gathered one after the other, the rest of `modules` together.
    """

    processes: Processes
    options: ShardOptions
    device: torch.device
    modules: tuple[FSDPModule, ...]
    layers: tuple[nn.Module, ...]

    def most(self, calls: Sequence[tuple[int, bool]]) -> list[tuple[int, bool]]:
        """For each part of a batch the rows that all compute, and whether one by one. All processes call it.

        Arguments are what this process needs, in the same form.
        """
        found: list[tuple[int, bool]] = []
        for theirs in self.processes.gather(list(calls)):
            found += [(0, False)] * (len(theirs) - len(found))
            for number, (rows, one_by_one) in enumerate(theirs):
                found[number] = max(rows, found[number][0]), one_by_one or found[number][1]
        return found

    def norm(self, weights: Sequence[nn.Parameter]) -> float:
        """The Euclidean norm of all gradients together. All processes call it."""
        squares = [_local(weight.grad).float().square().sum() for weight in weights if weight.grad is not None]
        total = torch.stack(squares).sum().to(self.device).reshape(1) if squares else torch.zeros(1).to(self.device)
        self.processes.add([total])
        return float(total.sqrt())

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor, gathered from all processes, on the device. All processes call it."""
        if not isinstance(tensor, DTensor):
            return tensor.detach()
        local, (shape, stride) = _local(tensor).to(self.device), (tensor.shape, tensor.stride())
        mesh, placements = tensor.device_mesh, tensor.placements
        there = DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)
        gathered: Tensor = there.full_tensor()  # of a storage with room for equal parts of all processes
        return gathered.clone() if gathered.untyped_storage().nbytes() > gathered.nbytes else gathered

    def collected(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole tensors in the memory of process 0; empty in the others. All processes call it."""
        self.reshard()
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            gathered = self.whole(tensor)
            if self.processes.leads:
                found[name] = gathered.cpu()
        return found

    def whole_model(self, made: Trainable) -> Trainable:
        """The model with the whole tensors to be written, adapters merged, in process 0. All processes call it."""
        self.reshard()
        stored: list[StoredTensor] = []
        known: dict[int, StoredTensor] = {}  # a tensor with two names stays one, which is written once
        for part in made.stored:
            found = known.get(id(part.tensor))
            if found is None:
                tensor = part.merged(self.whole)
                found = StoredTensor(part.name, tensor.cpu() if self.processes.leads else torch.empty(0))
                known[id(part.tensor)] = found
            stored.append(replace(found, name=part.name))
        named = {name: nn.Parameter(tensor, False) for name, tensor in self.collected(made.named).items()}
        return replace(made, stored=stored, named=named)

    def reserved(self, weights: Sequence[nn.Parameter]) -> int:
        """Bytes on the device for gradients, the optimizer and gathered tensors, in fp32."""
        sizes = [sum(weight.numel() for weight in layer.parameters()) for layer in self.layers]
        everything = sum(weight.numel() for module in self.modules[-1:] for weight in module.parameters())  # type: ignore[attr-defined]
        rest = everything - sum(sizes)
        gathered = rest + (2 * max(sizes, default=0) if self.options.reshard else sum(sizes))
        kept = 0 if self.options.offload else 3 * sum(_local(weight).numel() for weight in weights)
        return 4 * (kept + 2 * gathered)  # a gathered weight has a gradient of its size for a while

    @staticmethod
    def part_of(value: Tensor, weight: Tensor) -> Tensor:
        """What this process has of a whole tensor that belongs to a weight, as a copy on the weight's device."""
        assert isinstance(weight, DTensor)
        parts = value.chunk(weight.device_mesh.size(), dim=0)
        place = weight.device_mesh.get_local_rank()
        mine = parts[place] if place < len(parts) else value[:0]
        found = torch.empty_like(weight, dtype=value.dtype)
        _local(found).copy_(mine)
        return found

    def reshard(self) -> None:
        """Free what was gathered."""
        for module in self.modules:
            module.reshard()


class _Root(nn.Module):
    """Computes a row's scores: the module around all others, for which FSDP gathers what no layer has."""

    def __init__(self, modules: nn.ModuleList, logits: Callable[[TokenRow], Tensor]) -> None:
        super().__init__()
        self.parts = modules
        self.logits = logits

    def forward(self, row: TokenRow) -> Tensor:
        return self.logits(row).clone()  # FSDP's hook on a view would be lost if that is changed in place


@contextmanager
def turn(options: ShardOptions, processes: Processes) -> Iterator[None]:
    """A block that loads and shards the model, if so wanted in one process of a machine after the other."""
    before = processes.local if options.in_turn else 0
    turns = max(processes.gather(before)) + 1
    for _ in range(before):
        processes.wait()
    yield
    for _ in range(before, turns):
        processes.wait()


def shard(made: Trainable, options: ShardOptions, processes: Processes) -> Sharding:
    """Divide the tensors of the model, whose `named` and `stored` are the parts afterwards. Raises UsageError.

    Tensors may be on the CPU before, and are on the model's device afterwards, or on the CPU with `offload`.
    """
    layers = _layers(made, options.layers)
    offload = CPUOffloadPolicy(pin_memory=made.device.type == "cuda") if options.offload else OffloadPolicy()
    common: dict[str, Any] = {"mesh": init_device_mesh(made.device.type, (processes.count,)), "offload_policy": offload}
    root = _Root(made.modules, made.model.logits)
    before = [
        (module, name, weight)
        for module in root.modules()
        for name, weight in module._parameters.items()
        if weight is not None
    ]
    for layer in layers:
        fully_shard(layer, reshard_after_forward=options.reshard, **common)
    fully_shard(root, reshard_after_forward=False, **common)  # its tensors are needed first in the backward pass
    found = {id(weight): cast("nn.Parameter", module._parameters[name]) for module, name, weight in before}
    made.named = {name: found[id(weight)] for name, weight in made.named.items()}
    made.stored = [replace(part, tensor=found.get(id(part.tensor), part.tensor)) for part in made.stored]
    modules = tuple(module for module in (*layers, root) if isinstance(module, FSDPModule))
    for module in modules:  # the loss is divided by the units of all processes already
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    sharding = Sharding(processes, options, made.device, modules, tuple(layers))

    def logits(row: TokenRow) -> Tensor:
        scores: Tensor = root(row)
        if not torch.is_grad_enabled():  # there is no backward pass that would free what was gathered
            sharding.reshard()
        return scores

    made.gathering = logits
    return sharding


def _local(tensor: Tensor) -> Tensor:
    """What this process has of it."""
    found: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return found.detach()


def _layers(made: Trainable, names: tuple[str, ...] | None) -> list[nn.Module]:
    """The members of the model's stack of layers, those of these classes if any are named. Raises UsageError."""
    if names == ():
        return []
    stacks = [part for part in made.modules.modules() if isinstance(part, nn.ModuleList) and part is not made.modules]
    if not stacks:
        return []
    stack = max(stacks, key=lambda part: sum(weight.numel() for weight in part.parameters()))
    kinds = [type(layer.layer if isinstance(layer, TrimmedLayer) else layer).__name__ for layer in stack]
    unknown = sorted(set(names or ()) - set(kinds))
    if unknown:
        known = ", ".join(sorted(set(kinds)))
        raise UsageError(f"FSDP_TRANSFORMER_CLS_TO_WRAP {', '.join(unknown)}: no such layers (expected {known})")
    return [layer for layer, kind in zip(stack, kinds, strict=True) if names is None or kind in names]
