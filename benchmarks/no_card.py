"""A CUDA card that is not there: what the program asks of torch is answered with tensors that are only shapes.

Inside `no_card()`, a model that is opened on `cuda` loads its weights as usual, and sends them to tensors without
storage (`FakeTensorMode`). Every operator checks devices, dtypes and shapes, and none computes. Needs a torch that is
built with CUDA: any other refuses to send a tensor to `cuda`, even without storage.

What is not as on a card: `torch.cuda.is_available()` is False; pinned memory is ordinary memory with a mark on it;
checks of numbers are passed over (weights are finite, the trial product of float8 is right, and a packed model scores
as the padded one does if `packs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from rerank_cli.models import inputs

CAPABILITY = (9, 0)
MEMORY = 80 << 30


def is_pinned(tensor: Tensor) -> bool:
    return bool(getattr(tensor, "_marked_as_pinned", False))


def _marked(tensor: Tensor) -> Tensor:
    tensor._marked_as_pinned = True  # type: ignore[attr-defined]
    return tensor


class Card(TorchFunctionMode):
    """Runs whatever concerns the device with tensors without storage, and gives the host memory with storage."""

    def __init__(self, mode: FakeTensorMode, packs: bool) -> None:
        super().__init__()
        self.mode = mode
        self._packs = packs

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("pin_memory"):
            with _disable_current_modes():
                return _marked(torch.zeros(*args, **{name: kwargs[name] for name in kwargs if name != "pin_memory"}))
        if func is Tensor.pin_memory:
            return _marked(args[0])
        if func is Tensor.to and type(args[0]) is not FakeTensor and _concerns_device(args, kwargs):
            sent = self.mode.from_tensor(args[0].detach())
            args = (_marked(sent) if is_pinned(args[0]) else sent, *args[1:])
        if func is Tensor.numpy or (func is Tensor.cpu and type(args[0]) is Tensor):
            with _disable_current_modes():
                return func(*args, **kwargs)
        if func is Tensor.cpu and isinstance(args[0], FakeTensor):  # of scores that are compared
            with _disable_current_modes():
                return torch.full(args[0].shape, 0.0 if self._packs else torch.nan, dtype=args[0].dtype)
        with self.mode if _concerns_device(args, kwargs) else nullcontext():
            return func(*args, **kwargs)


def _concerns_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    for leaf in tree_leaves((args, kwargs)):
        if isinstance(leaf, FakeTensor) or (isinstance(leaf, torch.device) and leaf.type == "cuda"):
            return True
    return kwargs.get("device") == "cuda" or (len(args) > 1 and args[1] == "cuda")


class _Event:
    def __init__(self, **_: Any) -> None: ...

    def record(self, _: Any) -> None: ...

    def synchronize(self) -> None: ...


def _apply(module: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` for tensors that cannot take another's place in memory; ties between parameters stay."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules() if recurse else [module]:
        for name, weight in part._parameters.items():
            if weight is not None:
                if id(weight) not in made:
                    made[id(weight)] = nn.Parameter(change(weight.detach()), weight.requires_grad)
                part._parameters[name] = made[id(weight)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module


@contextmanager
def no_card(packs: bool = True) -> Iterator[FakeTensorMode]:
    """Everything inside sees one card of compute capability 9.0 with 80 GB, all free."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    answers = {
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.get_device_capability": lambda *_: CAPABILITY,
        "torch.cuda.get_device_name": lambda *_: "no card",
        "torch.cuda.mem_get_info": lambda *_: (MEMORY, MEMORY),
        "torch.cuda.current_stream": lambda *_: None,
        "torch.cuda.Event": _Event,
        "torch.nn.Module._apply": _apply,
        "torch.allclose": lambda *_, **__: packs,
        "transformers.utils.import_utils.is_fake_tensor": lambda _: False,  # which would leave out checks of masks
        "rerank_cli.models.tensors._suspects": lambda _: [],
        "rerank_cli.engine.device.refuse_without_float8": lambda *_: None,
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch(name, answer))
        stack.enter_context(Card(mode, packs))
        inputs.has_kernel.cache_clear()
        stack.callback(inputs.has_kernel.cache_clear)
        yield mode
