"""Rows side by side on a CPU: a lane is a thread that works one row at a time on one core.

Threads that share a row wait for each other at the end of every operation, which costs most where the machine is busy
with something else. RowWorkers wait for nobody, and as one thread works a whole row, scores do not depend on how many there
are, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

T = TypeVar("T")


class RowWorkers:
    """`count` threads, each with one thread of torch's own; they end with the process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "lane")

    def start(self, work: Callable[[T], Tensor], on: T) -> Pending:
        """Put work in line for the next lane that is free."""
        return Pending(self._pool.submit(_alone, work, on))


class Pending:
    """Scores that a lane is at, or will be."""

    def __init__(self, future: Future[Tensor]) -> None:
        self._future = future

    def wait(self) -> npt.NDArray[np.float32]:
        """The scores; raises what the work raised."""
        found: npt.NDArray[np.float32] = self._future.result().numpy()
        return found

    def withdraw(self) -> bool:
        """Take it out of the line; False where a lane has begun."""
        return self._future.cancel()


def _alone(work: Callable[[T], Tensor], on: T) -> Tensor:
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    return work(on)


def is_thread_safe(backbone: nn.Module) -> bool:
    """Whether several threads may run the model at once: some rotary embeddings change with the row they are given."""
    changing = {"dynamic", "longrope"}
    kinds = [getattr(module, "rope_type", None) for module in backbone.modules()]
    named = [set(kind.values()) if isinstance(kind, dict) else {kind} for kind in kinds]
    return not any(kind & changing for kind in named)
