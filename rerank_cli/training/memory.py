"""How many tokens' activations fit into memory at once."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rerank_cli.models.trainable import Trainable

_SHARE_OF_CARD = 0.8  # of the free memory; a step that does not fit after all is divided further
_SHARE_OF_HOST = 0.25  # of all memory: on a CPU a process that needs too much is ended, not told
_LEAST = 512
_MOST_ON_HOST = 8192  # more are not faster on a CPU
_OF_BLOCK, _OF_INNER = 10, 2.5  # values that a block keeps for its backward pass, per hidden and per inner unit


def part_tokens_for(model: Trainable, recompute: bool, reserved: int | None = None) -> int:
    """The number of tokens, a power of two, so that it is the same in every run on a machine of this size.

    Estimated from the shape: what blocks keep for their backward pass, in fp32, or in bf16 with autocast. `reserved`
    bytes are set aside, by default for gradients and the optimizer's two moments of all trained tensors.
    """
    config: Any = next(part.config for part in model.modules.modules() if hasattr(part, "config"))
    hidden = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None) or 4 * hidden)
    blocks = max((len(part) for part in model.modules.modules() if isinstance(part, nn.ModuleList)), default=1)
    of_block = _OF_BLOCK * hidden + _OF_INNER * inner
    kept = of_block + blocks * hidden if recompute else blocks * of_block
    size = 4 if model.autocast is None else 3  # norms and sums stay in fp32
    if reserved is None:
        reserved = sum(3 * 4 * weight.numel() for weight in model.trained.values())
    tokens = max(_LEAST, int((_memory(model.device) - reserved) / (kept * size)))
    return 1 << (tokens if model.device.type == "cuda" else min(tokens, _MOST_ON_HOST)).bit_length() - 1


def _memory(device: torch.device) -> int:
    """Bytes for activations and the tensors of training."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(_SHARE_OF_CARD * free)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), resource.getrlimit(resource.RLIMIT_AS)[0]]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text().strip() if Path(path).is_file() else ""
        limits.append(int(text) if text.isdigit() else -1)
    return int(_SHARE_OF_HOST * min(limit for limit in limits if limit > 0))
