"""Watches what a model asks of its device: counts operators, and finds those that make the host wait.

`Watch` sees every operator call below autograd, after composite operators were taken apart, whether its tensors hold
numbers or are only shapes (`FakeTensorMode`).
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their result, or its shape, depends on numbers, so that the host waits for the device.
WAITS = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "_unique",
    "_unique2", "unique_consecutive", "bincount", "histc", "_linalg_check_errors",
}  # fmt: skip
# They allocate or describe, and start no kernel.
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_pin_memory", "device"}
NO_WORK = {"detach", "alias", "lift_fresh"}
ATTENTION = "variable_length"


def name_of(func: Any) -> str:
    """`aten.add.Tensor` is add."""
    return str(func.overloadpacket.__name__)


def place() -> str:
    """The innermost line of our own or of a model's code that is being run."""
    for frame in reversed(traceback.extract_stack()):
        for package in ("rerank_cli", "transformers"):
            if f"/{package}/" in frame.filename:
                return f"{package}/{frame.filename.rpartition(f'/{package}/')[2]}:{frame.lineno}"
    last = traceback.extract_stack()[0]
    return f"{Path(last.filename).name}:{last.lineno}"


class Watch(TorchDispatchMode):
    """Counts the operators on tensors of one kind of device, and collects `faults`, with the line that asked for each.

    `is_pinned` tells whether a tensor of the host lies in pinned memory. `check` is called with the arguments of each
    call of the variable-length attention. Copies to the host are counted in `fetched`: only copies into pinned memory
    that are not waited for are no fault.
    """

    def __init__(
        self,
        device: str = "cuda",
        is_pinned: Callable[[Tensor], bool] = Tensor.is_pinned,
        check: Callable[..., Any] = lambda *_: None,
    ) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.kernels = self.sent = self.fetched = 0
        self._device, self._is_pinned, self._check = device, is_pinned, check

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if func.namespace == "aten" and name not in {"_to_copy", "copy_"}:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on = {tensor.device.type for tensor in tensors if tensor.dim()}
        self.calls[name] += 1
        if name in WAITS or _waits_for_shape(name, args, kwargs):
            self._fault(f"{name} waits for the device")
            if name == "_local_scalar_dense":  # some number, so that the rest is watched too
                return True if args[0].dtype == torch.bool else args[0].dtype.is_floating_point * 1.0 or 1
        if name in {"_to_copy", "copy_"} and (moved := self._moved(name, args, kwargs)) is not None:
            return moved
        if name == ATTENTION:
            self._check(*args)
        found = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        on_device = any(tensor.device.type == self._device for tensor in outputs)
        if on_device and "cpu" in on and self._device != "cpu" and name not in {"_to_copy", "copy_"}:
            self._fault(f"{name} takes a tensor of the host")
        if not on_device and any(tensor.dim() for tensor in outputs) and name not in NO_KERNEL | NO_WORK:
            self._fault(f"{name} computes on the host")
        if on_device and name not in NO_KERNEL and not _is_view(func):
            self.kernels += 1
        return found

    def _fault(self, what: str) -> None:
        self.faults[f"{what}, {place()}"] += 1

    def _moved(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Counts a copy between devices; returns the target of one to the host, which needs no numbers here."""
        source = args[0] if name == "_to_copy" else args[1]
        target = torch.device(kwargs.get("device") or source.device) if name == "_to_copy" else args[0].device
        if source.device.type == target.type or {source.device.type, target.type} != {"cpu", self._device}:
            return None
        waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        host = args[0] if name == "copy_" and target.type == "cpu" else source
        pinned = host.device.type == "cpu" and self._is_pinned(host)
        if target.type == "cpu":
            self.fetched += 1
            if waits or not pinned:
                self._fault(f"{name} to the host waits for the device")
            return args[0] if name == "copy_" else None
        self.sent += 1
        if waits or not pinned:
            self._fault(f"{name} to the device from {'pinned' if pinned else 'pageable'} memory, waited for")
        return None


def _waits_for_shape(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name == "repeat_interleave":  # of counts alone: everything else is composed of it
        return kwargs.get("output_size") is None
    if name in {"index", "index_put", "index_put_", "_index_put_impl_"}:
        return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in args[1])
    return False


def _is_view(func: Any) -> bool:
    """Whether the operator returns its argument under another shape, by its schema."""
    returns = [found.alias_info for found in func._schema.returns]
    viewed = bool(returns) and all(alias is not None and not alias.is_write for alias in returns)
    return viewed or name_of(func) in {"_reshape_alias", "_unsafe_view", "lift_fresh"}


def tensors_of(thing: object, seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that an object holds, in attributes, modules and containers, with the path to it."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type)) or hasattr(thing, "cache_info"):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield "", thing
        return
    if isinstance(thing, dict):
        parts = [(f"[{key}]", value) for key, value in thing.items()]
    elif isinstance(thing, (list, tuple, set, frozenset)):
        parts = [(f"[{place}]", value) for place, value in enumerate(thing)]
    else:
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        names = [*getattr(thing, "__dict__", {}), *slots]
        parts = [(f".{name}", getattr(thing, name, None)) for name in names]
    for name, part in parts:
        for path, tensor in tensors_of(part, seen):
            yield name + path, tensor
