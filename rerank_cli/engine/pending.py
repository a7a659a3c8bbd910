"""Scores that are being computed: by CPU threads that work one row each, or by a device that copies them back.

On a CPU, threads that share a row wait for each other at the end of every operation, which costs most on a busy
machine. Row workers are threads that compute whole rows alone, so scores do not depend on their number, to the bit.
On CUDA, a row's scores are copied to the host asynchronously and waited for one row late, so the device stays busy.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class HostCopy:
    """Scores that are there once `arrived` has happened; without one they are fetched when they are asked for."""

    scores: Tensor
    arrived: torch.cuda.Event | None = None

    def wait(self) -> npt.NDArray[np.float32]:
        if self.arrived is not None:
            self.arrived.synchronize()
        found: npt.NDArray[np.float32] = self.scores.cpu().numpy()
        return found

    def withdraw(self) -> bool:
        """No: the device has it."""
        return False


def fetch(scores: Tensor) -> HostCopy:
    """Start the copy, and do not wait: into pinned memory, which nothing else may use until it has been read."""
    if scores.device.type != "cuda":
        return HostCopy(scores)
    home = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
    home.copy_(scores, non_blocking=True)
    # Blocking, since the tokenizer has better use for the core than a spinning wait.
    arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(scores.device))
    return HostCopy(home, arrived)
