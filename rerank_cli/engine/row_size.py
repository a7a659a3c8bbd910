"""Tokens of a packed row on a CUDA device: enough to keep it busy, and no more than fit.

Larger rows than that are not faster, and leave more of a chunk's last row empty. The scorer splits a row that does not
fit after all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rerank_cli.models.families import CrossEncoder

log = logging.getLogger(__name__)

FEWEST, MOST = 16_384, 131_072
_BUSY = 20e12  # floating-point operations per row: about 25 ms on a large GPU, where the host takes 12 for XLM-R-large
_SHARE = 0.5  # of the free memory


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one token: operations in matrix products, bytes of intermediate states that are alive at once."""

    operations: int
    memory: int


def rows_for(model: CrossEncoder, device: torch.device, dtype: torch.dtype, longest: int) -> int:
    """Tokens per row, a power of two; logs the reason."""
    free, _ = torch.cuda.mem_get_info(device)
    cost = cost_of(model, dtype, longest)
    tokens = row_tokens(cost, free)
    why = f"{1e-12 * tokens * cost.operations:.0f} TFLOP and {tokens * cost.memory / 1e9:.1f} GB per row"
    log.info("--batch-tokens %d: %s, %.1f GB are free", tokens, why, free / 1e9)
    return tokens


def row_tokens(cost: Cost, free: int) -> int:
    busy = min(max(_BUSY / cost.operations, FEWEST), MOST)
    return 1 << max(0, int(min(busy, _SHARE * free / cost.memory)).bit_length() - 1)


def cost_of(model: CrossEncoder, dtype: torch.dtype, longest: int) -> Cost:
    """Estimated from the model's shape: memory is that of a block's widest point, kernel workspace included."""
    embeddings = sum(part.weight.numel() for part in model.backbone.modules() if isinstance(part, nn.Embedding))
    config: Any = next(part.config for part in model.backbone.modules() if hasattr(part, "config"))
    hidden = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    elements = 12 * hidden + 4 * inner
    if not model.packed:  # several full attention matrices
        elements += 4 * longest * int(config.num_attention_heads)
    return Cost(2 * max(1, model.parameters - embeddings), dtype.itemsize * elements)
