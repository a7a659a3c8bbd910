"""Whether bf16 is fast on this CPU: by its instructions, and by a product measured beside the same one in fp32.

Without instructions for bf16 (AVX-512-BF16, AMX) torch converts numbers one by one, which takes several times as long.
"""

from __future__ import annotations

import time

import torch

from rerank_cli.engine.pending import RowWorkers
from rerank_cli.models.instructions import has_bf16

_SIDE, _ROUNDS = 768, 5
_LEAST_GAIN = 1.3  # a model gains less than its products


def is_bf16_fast() -> bool:
    """Whether it has such instructions, and a product in bf16 takes clearly less time; measured in some 20 ms."""
    if not has_bf16():
        return False
    worker = RowWorkers(1)  # one thread, as rows are scored
    best = {dtype: float(worker.start(_fastest, dtype).wait()) for dtype in (torch.float32, torch.bfloat16)}
    return best[torch.float32] >= _LEAST_GAIN * best[torch.bfloat16]


def _fastest(dtype: torch.dtype) -> torch.Tensor:
    """Seconds of the fastest of several products of a row's size, as a tensor."""
    states, weight = torch.ones(_SIDE, _SIDE, dtype=dtype), torch.ones(_SIDE, _SIDE, dtype=dtype)
    spent = []
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            torch.nn.functional.linear(states, weight)
            spent.append(time.perf_counter() - begun)
    return torch.tensor(min(spent))
