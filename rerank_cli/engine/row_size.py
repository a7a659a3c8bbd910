"""How many tokens a packed row should have on a CUDA card: enough to keep it busy, and no more than fit.

Larger rows than keep it busy gain nothing, and leave more of a chunk's last one empty. What does not fit after all is
split by the scorer.
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
_BUSY = 20e12  # floating-point operations a row: some 25 ms of a large card, ten times what launching them takes
_SHARE = 0.5  # of the free memory


@dataclass(frozen=True, slots=True)
class Cost:
    """What one token takes: operations in matrix products, bytes of states that are alive at once."""

    operations: int
    memory: int


def rows_for(model: CrossEncoder, device: torch.device, dtype: torch.dtype, longest: int) -> int:
    """Tokens in a row, a power of two; says why."""
    free, _ = torch.cuda.mem_get_info(device)
    cost = cost_of(model, dtype, longest)
    tokens = row_tokens(cost, free)
    why = f"{1e-12 * tokens * cost.operations:.0f} TFLOP and {tokens * cost.memory / 1e9:.1f} GB a row"
    log.info("--batch-tokens %d: %s, %.1f GB are free", tokens, why, free / 1e9)
    return tokens


def row_tokens(cost: Cost, free: int) -> int:
    busy = min(max(_BUSY / cost.operations, FEWEST), MOST)
    return 1 << max(0, int(min(busy, _SHARE * free / cost.memory)).bit_length() - 1)


def cost_of(model: CrossEncoder, dtype: torch.dtype, longest: int) -> Cost:
    """From the model's shape; the states of the widest place of a block, with what its kernels hold besides."""
    embeddings = sum(part.weight.numel() for part in model.backbone.modules() if isinstance(part, nn.Embedding))
    config: Any = next(part.config for part in model.backbone.modules() if hasattr(part, "config"))
    hidden = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    elements = 12 * hidden + 4 * inner
    if not model.packed:  # attention in full, several times over
        elements += 4 * longest * int(config.num_attention_heads)
    return Cost(2 * max(1, model.parameters - embeddings), dtype.itemsize * elements)
