"""The matrix-multiply rate that a device reaches here and now: what a model's share of the machine is measured against.

The best of several large shapes and of the ways torch has to multiply, on a CPU also with a product a thread, as rows
are scored there. The quickest single run counts, because
neighbours and clocks only ever slow a product down. `Peak` holds two of them, from before and after the work that is
compared: a machine that throttles or is shared shows two different rates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from rerank_cli.engine.pending import RowWorkers

_SMALLEST, _LARGEST = 1024, 8192
_LONG_ENOUGH = 0.01
_FINALISTS = 3


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations a second, 2·m·k·n to a product, measured before and after the work that is compared with them."""

    before: float
    after: float

    @property
    def best(self) -> float:
        return max(self.before, self.after)


@dataclass(frozen=True, slots=True)
class _Product:
    """A way to multiply two matrices, and how many operations it is."""

    operations: int
    run: Callable[[], Tensor]


def matmul_peak(device: torch.device, dtype: torch.dtype, threads: int | None = None, seconds: float = 2.0) -> float:
    """FLOP/s of the best product, on the threads torch has or on `threads`; takes about `seconds`.

    Every candidate is run twice, the best few until the time is over.
    """
    with torch.inference_mode(), _threads(threads):
        until = time.perf_counter() + seconds
        side = _side(device, dtype)
        products = _products(side, device, dtype)
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
    """Of a square product that takes long enough to be timed."""
    side = _SMALLEST
    while side < _LARGEST:
        product = next(_ways(side, side, side, device, dtype))
        rate = max(_rate(product, device) for _ in range(3))
        if product.operations / rate >= _LONG_ENOUGH:
            break
        side *= 2
    return side


def _products(side: int, device: torch.device, dtype: torch.dtype) -> list[_Product]:
    """A square one, one that widens and one that narrows, in all ways."""
    shapes = ((side, side, side), (side, side // 2, 2 * side), (side, 2 * side, side // 2))
    return [product for shape in shapes for product in _ways(*shape, device, dtype)]


def _side_by_side(product: _Product, workers: RowWorkers) -> _Product:
    """The same on each lane."""

    def work(_: None) -> Tensor:
        product.run()
        return torch.empty(0)

    def run() -> Tensor:
        for begun in [workers.start(work, None) for _ in range(workers.count)]:
            begun.wait()
        return torch.empty(0)

    return _Product(workers.count * product.operations, run)


def _ways(rows: int, inner: int, outer: int, device: torch.device, dtype: torch.dtype) -> Iterator[_Product]:
    """[rows, inner] times [inner, outer] in each way that a model may take."""
    operations = 2 * rows * inner * outer
    states = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(outer, inner, device=device, dtype=dtype)
    turned = weight.t().contiguous()
    yield _Product(operations, lambda: linear(states, weight))
    yield _Product(operations, lambda: states @ turned)
    if device.type == "cpu" and dtype == torch.float32 and _packs_weights():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        yield _Product(operations, lambda: torch.ops.mkldnn._linear_pointwise(states, packed, None, "none", [], ""))


def _packs_weights() -> bool:
    """Whether oneDNN is here, for a kind of CPU on which it packs weights ahead of time."""
    return torch._C._has_mkldnn and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def _rate(product: _Product, device: torch.device) -> float:
    """Operations a second of one run."""
    begun = time.perf_counter()
    product.run()
    wait_for(device)
    return product.operations / (time.perf_counter() - begun)


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
