"""Scores that are still being computed: by CPU threads that score one row each, or by a device that copies them back.

On a CPU, threads that share a row wait for each other after every operation, which is slow on a busy machine. Row
workers are threads that score whole rows alone, so scores do not depend on the number of threads, not even by a bit.
On CUDA, a row's scores are copied to the host asynchronously and waited for one row late, so the device stays busy.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pending:
    """Scores of a row. `wait` returns them, or raises what the work raised; `cancel` is False if it has begun."""

    wait: Callable[[], npt.NDArray[np.float32]]
    cancel: Callable[[], bool] = lambda: False


class RowWorkers:
    """`count` threads, each of which limits torch to one thread; they end with the process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "row-worker")

    def start(self, work: Callable[[T], Tensor], on: T) -> Pending:
        """Queue `work(on)` for the next free thread."""
        future = self._pool.submit(_single_threaded, work, on)
        return Pending(lambda: future.result().numpy(), future.cancel)


def _single_threaded(work: Callable[[T], Tensor], on: T) -> Tensor:
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    return work(on)


def fetch(scores: Tensor) -> Pending:
    """Start an asynchronous copy of a row's scores into pinned host memory. Other devices copy when waited for."""
    if scores.device.type != "cuda":
        return Pending(lambda: scores.cpu().numpy())
    host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
    host.copy_(scores, non_blocking=True)
    # A blocking event sleeps instead of spinning, which leaves the core to the tokenizer.
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(scores.device))

    def wait() -> npt.NDArray[np.float32]:
        event.synchronize()
        return host.cpu().numpy()

    return Pending(wait)


def is_thread_safe(backbone: nn.Module) -> bool:
    """Whether several threads may run the model at once: rotary embeddings of some types change with their input."""
    kinds = [getattr(module, "rope_type", None) for module in backbone.modules()]
    named = [set(kind.values()) if isinstance(kind, dict) else {kind} for kind in kinds]
    return not any(kind & {"dynamic", "longrope"} for kind in named)
