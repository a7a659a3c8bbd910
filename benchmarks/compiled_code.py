"""The code that torch.compile writes for a card that is not there: graphs, operators and launches, counted.

torch's Inductor writes the kernels and the order of their launches for compute capability 9.0. None of it is built or
run: in place of the written code, the graph runs operator by operator.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.fx import GraphModule
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import _disable_current_modes

_LAUNCH = re.compile(r"^\s+(?:triton_\w+\.run|extern_kernels\.\w+|(?:\w+ = )?torch\.ops\.\w+\.\w+\.\w+)\(", re.M)
_INTERFACE = "torch._dynamo.device_interface.CudaInterface"
_ATTENTION = re.compile(r"torch\.ops\.rerank\.variable_length\.default\(")


@dataclass
class Code:
    """What was compiled, in a session; `refusals` are the program's own warnings."""

    graphs: int = 0
    operators: int = 0
    launches: int = 0
    attention: int = 0
    refusals: list[str] = field(default_factory=list)


class _Kernel:
    """A kernel that is written and not built."""

    def run(self, *_: Any, **__: Any) -> None: ...


class _Refusals(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._into.append(record.getMessage())


@contextmanager
def written_code(mode: Any) -> Iterator[Code]:
    """Counts what torch.compile writes inside. To be entered within `no_card`."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.runtime.hints import DeviceProperties
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    code = Code()
    device = DeviceProperties("cuda", 0, 132, 90, 9, 65_536, 2_048, 1_024, 32)
    real = torch.compile

    def count(text: str) -> None:
        calls = text[text.find("def call(") :]
        code.launches += len(_LAUNCH.findall(calls))
        code.attention += len(_ATTENTION.findall(calls))

    def backend(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        code.graphs += 1
        code.operators += sum(node.op == "call_function" for node in graph.graph.nodes)
        with config.patch(joint_graph_constant_folding=False):  # it would compute constants on the card
            compile_fx(graph, inputs)

        def run(*args: Any) -> Any:
            with mode:
                return graph.forward(*args)

        return run

    def compiling(function: Any, **options: Any) -> Any:
        made = real(function, **options | {"backend": backend})

        def run(*args: Any) -> Any:
            with _pop_mode_temporarily(), _disable_current_modes():  # the compiler would look into their code
                return made(*args)

        return run

    log, handler = logging.getLogger("rerank_cli"), _Refusals(code.refusals)
    log.addHandler(handler)
    with ExitStack() as stack:
        stack.callback(log.removeHandler, handler)
        stack.callback(torch.compiler.reset)
        for name, answer in {
            "torch.compile": compiling,
            "torch._inductor.runtime.hints.DeviceProperties.create": lambda _: device,
            f"{_INTERFACE}.get_device_properties": staticmethod(lambda *_: _properties()),
            f"{_INTERFACE}.is_bf16_supported": staticmethod(lambda *_, **__: True),
            "torch._inductor.scheduler.has_triton": lambda *_: True,
            "torch._inductor.async_compile.AsyncCompile.triton": lambda *_, **__: _Kernel(),
            "torch._inductor.graph.GraphLowering.save_output_code": staticmethod(count),
        }.items():
            stack.enter_context(patch(name, answer))
        driver.set_active(_Driver(GPUTarget("cuda", 90, 32)))
        yield code


def _properties() -> SimpleNamespace:
    """Of an H100, as far as the compiler asks."""
    return SimpleNamespace(
        name="no card", major=9, minor=0, multi_processor_count=132, regs_per_multiprocessor=65_536, warp_size=32,
        max_threads_per_multi_processor=2_048, max_threads_per_block=1_024, total_memory=80 << 30,
        shared_memory_per_block=49_152, shared_memory_per_block_optin=232_448, L2_cache_size=50 << 20,
    )  # fmt: skip


class _Driver:
    def __init__(self, target: Any) -> None:
        self._target = target

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)
