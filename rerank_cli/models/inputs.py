"""Rows on their way into a model: tensors on its device, and how the attention finds its way about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rerank_cli.models.packed_row import Index, Run, TokenRow

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

    `offsets` is int32 [s + 1] on the model's device, `longest` at least the greatest segment length, `longest_keys` at
    least the greatest with what is shared; `score_at` int64 [n] are the tokens that scores are read from, and
    `scored_offsets` int32 [s + 1] are the offsets of a row with those tokens alone. With `causal` a token sees nothing
    behind it. `kernel` says whether this device has the variable-length kernel; `keys` are for it alone, and None where
    nothing is shared. `runs` say the same as the offsets, for attention without it; a row in a frame has none.
    """

    runs: tuple[Run, ...]
    offsets: Tensor
    longest: int
    longest_keys: int
    score_at: Tensor
    scored_offsets: Tensor
    causal: bool = False
    keys: Keys | None = None
    kernel: bool = False


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """A packed row on the device: `ids`, `positions` and `types` are int32 [1, T]."""

    ids: Tensor
    positions: Tensor
    types: Tensor
    packing: Packing


@dataclass(frozen=True, slots=True)
class Frame:
    """What all rows of a compiled model have in common, so that it is compiled once.

    `tokens` in a row, of which what is missing is filled up; `longest` is the most that a sequence may have.
    """

    tokens: int
    longest: int


def model_inputs(
    row: TokenRow, device: torch.device, *, causal: bool, first_position: int = 0, frame: Frame | None = None
) -> ModelInputs:
    """Scores are read from each sequence's last token if `causal`, from its first one else.

    All that the device needs goes there in one copy. With a frame the row is filled up, and what tells rows apart is in
    tensors alone; the sequences that fill it are scored behind the others.
    """
    if frame is not None:
        row = row.filled(frame.tokens, frame.longest)
    ends = np.cumsum(row.lengths)
    scored = np.zeros(len(row.lengths), dtype=np.int64)
    scored[row.scored] = 1
    arrays: dict[str, Array] = {
        "ids": row.ids,
        "positions": row.positions + first_position,
        "types": row.types,
        "offsets": _offsets(row.lengths),
        "scored": _offsets(scored),
        "score_at": ends[row.scored] - 1 if causal else row.starts[row.scored],
    }
    kernel = has_kernel(device)
    if kernel and causal and (frame is not None or row.prefixes.any()):
        arrays |= {"keys": _key_index(row), "key_offsets": _offsets(row.lengths + row.prefixes)}
    there = _together(arrays, device)
    keys = Keys(there["keys"].long(), there["key_offsets"]) if "keys" in there else None
    packing = Packing(
        runs=row.runs() if frame is None else (),
        offsets=there["offsets"],
        longest=int(row.lengths.max()) if frame is None else frame.longest,
        longest_keys=int((row.lengths + row.prefixes).max()) if frame is None else frame.longest,
        score_at=there["score_at"].long(),
        scored_offsets=there["scored"],
        causal=causal,
        keys=keys,
        kernel=kernel,
    )
    return ModelInputs(there["ids"][None], there["positions"][None], there["types"][None], packing)


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether torch's variable-length attention runs there: its flash kernel begins with Ampere."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _offsets(lengths: Index) -> Index:
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))


def _key_index(row: TokenRow) -> Index:
    """The tokens that each segment's queries see, segment by segment, the shared ones first."""
    counts = row.lengths + row.prefixes
    first = row.starts if row.parents is None else np.where(row.parents < 0, row.starts, row.starts[row.parents])
    place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    before = np.repeat(row.prefixes, counts)
    own = np.repeat(row.starts, counts) + place - before
    index: Index = np.where(place < before, np.repeat(first, counts) + place, own)
    return index


def _together(arrays: dict[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Whole numbers as int32 tensors on the device, by one copy that nobody waits for.

    torch keeps the pinned memory until the copy has been made, and gives it out again after that. Each tensor begins
    at a multiple of 16 bytes, which compiled kernels count on.
    """
    sizes = [len(values) for values in arrays.values()]
    places = [-(-size // 4) * 4 for size in sizes]
    pinned = device.type == "cuda"  # elsewhere a copy that is not waited for may read memory that is given back
    buffer = torch.empty(sum(places), dtype=torch.int32, pin_memory=pinned)
    flat, start = buffer.numpy(), 0
    for values, place in zip(arrays.values(), places, strict=True):
        flat[start : start + len(values)] = values
        start += place
    there = torch.split(buffer.to(device, non_blocking=pinned), places)
    return {name: part[:size] for name, part, size in zip(arrays, there, sizes, strict=True)}


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
