"""Rows on their way into a model: tensors on its device, and how the attention finds its way about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rerank_cli.models.rows import Run, TokenRow

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a model runs. `attention` names the packed attention in transformers' interface.

    Without it a model is run as others would run it, to compare with: padded, with transformers' own attention.
    """

    device: torch.device
    dtype: torch.dtype
    attention: str | None


@dataclass(frozen=True, slots=True)
class Keys:
    """What each segment attends to where beginnings are shared: `index` int64 [K] gathers keys, the shared ones first.

    `offsets` is int32 [s + 1].
    """

    index: Tensor
    offsets: Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """How a packed row is cut into segments; travels through the model's forward to the attention function.

    `offsets` is int32 [s + 1] on the model's device, `longest` the greatest segment length, `longest_keys` the greatest
    with what is shared; `score_at` int64 [n] are the tokens that scores are read from, `scored` int64 [n] the segments
    they lie in. With `causal` a token sees nothing behind it. `keys` (CUDA) is None where nothing is shared.
    """

    runs: tuple[Run, ...]
    offsets: Tensor
    longest: int
    longest_keys: int
    score_at: Tensor
    scored: Tensor
    causal: bool = False
    keys: Keys | None = None


def packing_of(row: TokenRow, device: torch.device, *, causal: bool) -> Packing:
    """Scores are read from each sequence's last token if `causal`, from its first one else."""
    shared = row.parents is not None and bool((row.parents >= 0).any())
    ends = np.cumsum(row.lengths)
    at = ends[row.scored] - 1 if causal else row.starts[row.scored]
    return Packing(
        runs=row.runs(),
        offsets=to_device(np.concatenate(([0], ends)).astype(np.int32), device),
        longest=int(row.lengths.max()),
        longest_keys=int((row.lengths + row.prefixes).max()),
        score_at=to_device(at, device),
        scored=to_device(row.scored, device),
        causal=causal,
        keys=_keys(row, device) if shared and device.type == "cuda" else None,
    )


def _keys(row: TokenRow, device: torch.device) -> Keys:
    assert row.parents is not None
    pieces = []
    for start, length, parent in zip(row.starts, row.lengths, row.parents, strict=True):
        if parent >= 0:
            pieces.append(np.arange(row.starts[parent], row.starts[parent] + row.lengths[parent]))
        pieces.append(np.arange(start, start + length))
    offsets = np.concatenate(([0], np.cumsum(row.lengths + row.prefixes))).astype(np.int32)
    return Keys(to_device(np.concatenate(pieces), device), to_device(offsets, device))


def padded(row: TokenRow, device: torch.device, pad: int) -> dict[str, Tensor]:
    """A row without shared beginnings as a right-padded batch: `input_ids`, `attention_mask`, `token_type_ids`."""
    rows = np.repeat(np.arange(len(row.lengths)), row.lengths)
    shape = (len(row.lengths), int(row.lengths.max()))
    ids, mask, types = np.full(shape, pad), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    ids[rows, row.positions], mask[rows, row.positions], types[rows, row.positions] = row.ids, 1, row.types
    found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: to_device(value, device) for name, value in found.items()}


def to_device(values: Array, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
