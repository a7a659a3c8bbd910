"""Measures the matrix-multiply rate that a device reaches: the reference for a model's utilization.

Tries several large shapes and torch's ways to multiply; on a CPU also one product per thread, as rows are scored there.
The fastest single run counts: other load and clock changes only slow a product down. `Peak` holds rates from before and
after the measured work, which differ on a machine that throttles or is shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from rerank_cli.choices import Quantize
from rerank_cli.engine.contract import ModelFacts
from rerank_cli.engine.device import DTYPES
from rerank_cli.engine.pending import RowWorkers
from rerank_cli.models.instructions import has_bf16
from rerank_cli.models.quantization.int8 import SEVEN_BITS, multiply, packed

_SMALLEST, _LARGEST = 1024, 8192
_LONG_ENOUGH = 0.01  # seconds
_FINALISTS = 3


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations per second, 2·m·k·n per product, measured before and after the work that is compared with them.

    `precision` is that of the numbers multiplied: fp32, fp16, bf16 or int8.
    """

    before: float
    after: float
    precision: str

    @property
    def best(self) -> float:
        return max(self.before, self.after)


@dataclass(frozen=True, slots=True)
class _Product:
    """A way to multiply two matrices, and its number of operations."""

    operations: int
    run: Callable[[], object]


def precision_of(facts: ModelFacts) -> str:
    """The precision of a model's products that its peak is measured in; with float8, that of its other products."""
    return facts.quantize if facts.quantize == Quantize.INT8.value else facts.dtype


def matmul_peak(device: torch.device, precision: str, seconds: float = 2.0) -> float:
    """Operations per second of the fastest product. Runs each twice, then the fastest few, for about `seconds`."""
    dtype = torch.int8 if precision == Quantize.INT8.value else DTYPES[precision]
    threads = torch.get_num_threads()
    with ExitStack() as stack, torch.inference_mode():
        torch.set_num_threads(threads)  # before and after: row workers change torch's global setting
        stack.callback(torch.set_num_threads, threads)
        until = time.perf_counter() + seconds
        products = _products(_side(device, dtype), device, dtype)
        if device.type == "cpu" and torch.get_num_threads() > 1:
            workers = RowWorkers(torch.get_num_threads())
            products += [_side_by_side(product, workers) for product in _products(_SMALLEST, device, dtype)]
        rates = [max(_rate(product, device) for _ in range(2)) for product in products]
        finalists = sorted(range(len(products)), key=lambda place: -rates[place])[:_FINALISTS]
        best = rates[finalists[0]]
        while time.perf_counter() < until:
            best = max(best, *(_rate(products[place], device) for place in finalists))
        return best


def _side(device: torch.device, dtype: torch.dtype) -> int:
    """Side of a square product that takes long enough to be timed."""
    side = _SMALLEST
    while side < _LARGEST:
        product = next(_ways(side, side, side, device, dtype))
        rate = max(_rate(product, device) for _ in range(3))
        if product.operations / rate >= _LONG_ENOUGH:
            break
        side *= 2
    return side


def _products(side: int, device: torch.device, dtype: torch.dtype) -> list[_Product]:
    """A square product, a widening and a narrowing one, in all ways."""
    shapes = ((side, side, side), (side, side // 2, 2 * side), (side, 2 * side, side // 2))
    return [product for shape in shapes for product in _ways(*shape, device, dtype)]


def _side_by_side(product: _Product, workers: RowWorkers) -> _Product:
    """The product once on each row worker."""

    def work(_: None) -> Tensor:
        product.run()
        return torch.empty(0)

    def run() -> None:
        for begun in [workers.start(work, None) for _ in range(workers.count)]:
            begun.wait()

    return _Product(workers.count * product.operations, run)


def _ways(rows: int, inner: int, outer: int, device: torch.device, dtype: torch.dtype) -> Iterator[_Product]:
    """[rows, inner] times [inner, outer] in each way that a model may use."""
    operations = 2 * rows * inner * outer
    if dtype == torch.int8:
        numbers = torch.randint(256, (rows, inner), dtype=torch.uint8)
        integers = packed(torch.randint(-SEVEN_BITS, SEVEN_BITS + 1, (outer, inner), dtype=torch.int8))
        scale, zero = torch.ones(outer), torch.zeros(outer, dtype=torch.int32)
        yield _Product(operations, lambda: multiply(numbers, integers, scale, zero))
        return
    states = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(outer, inner, device=device, dtype=dtype)
    turned = weight.t().contiguous()
    yield _Product(operations, lambda: linear(states, weight))
    yield _Product(operations, lambda: states @ turned)
    # oneDNN packs weights ahead of time on CPUs with AVX, in bf16 on those with instructions for it.
    packs = device.type == "cpu" and torch._C._has_mkldnn and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if packs and (dtype == torch.float32 or (dtype == torch.bfloat16 and has_bf16())):
        ahead = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        yield _Product(operations, lambda: torch.ops.mkldnn._linear_pointwise(states, ahead, None, "none", [], ""))


def _rate(product: _Product, device: torch.device) -> float:
    """Operations per second of one run."""
    begun = time.perf_counter()
    product.run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return product.operations / (time.perf_counter() - begun)
