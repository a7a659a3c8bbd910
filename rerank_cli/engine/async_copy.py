"""Scores on their way home: copied behind the row that made them, waited for only once the next row is on its way.

A plain `.cpu()` would wait for all that was launched before it, the next row too, and leave the device idle after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


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
