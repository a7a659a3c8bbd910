"""Rows as tensors on the model's device: packed with segment offsets for the attention, or as a padded batch."""

from __future__ import annotations

import inspect
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
    """Device and dtype of a model. `attention` is the name of the packed attention in transformers' interface.

    If it is None, the model runs as transformers runs it, padded and with its own attention, as a reference. With
    `on_host`, weights are loaded into the memory of the host, for the caller to move them to the device.
    """

    device: torch.device
    dtype: torch.dtype
    attention: str | None
    on_host: bool = False

    @property
    def of_weights(self) -> torch.device:
        """Where weights are loaded."""
        return torch.device("cpu") if self.on_host else self.device


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of each segment when prefixes are shared: `index` int64 [K] gathers them, those of the prefix first.

    `offsets` is int32 [s + 1].
    """

    index: Tensor
    offsets: Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """The segments of a packed row, passed through the model's forward to the attention function.

    `offsets` is int32 [s + 1] on the model's device; `longest` is an upper bound of the segment lengths, `longest_keys`
    of the lengths including the shared prefix. `score_at` int64 [n] are the tokens that scores are read from, and
    `scored_offsets` int32 [s + 1] the offsets of a row of only those tokens. If `causal`, a token attends to no later
    token. `kernel` is whether this device has the variable-length kernel, and `windows` whether that takes a sliding
    window; `keys` are for that kernel only, and None if nothing is shared. `runs` hold the same segments for attention
    without the kernel, and are empty in a framed row.
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
    windows: bool = False


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """A packed row on the device: `ids`, `positions` and `types` are int32 [1, T]."""

    ids: Tensor
    positions: Tensor
    types: Tensor
    packing: Packing


@dataclass(frozen=True, slots=True)
class Frame:
    """The constant size of all rows of a compiled model, so that it is compiled once.

    Every row is filled up to `tokens` tokens; no sequence is longer than `longest`.
    """

    tokens: int
    longest: int


def model_inputs(
    row: TokenRow, device: torch.device, *, causal: bool, first_position: int = 0, frame: Frame | None = None
) -> ModelInputs:
    """The row on the device, sent in one copy. Scores are read from last tokens if `causal`, else from first ones.

    With a frame the row is filled up, and only tensors differ between rows; the filling sequences are scored last.
    """
    if frame is not None:
        row = row.filled(frame.tokens, frame.longest)
    key_lengths = row.lengths + row.prefixes
    scored = np.zeros(len(row.lengths), dtype=np.int64)
    scored[row.scored] = 1
    arrays: dict[str, Array] = {
        "ids": row.ids,
        "positions": row.positions + first_position,
        "types": row.types,
        "offsets": _offsets(row.lengths),
        "scored": _offsets(scored),
        "score_at": (row.starts + (row.lengths - 1 if causal else 0))[row.scored],
    }
    kernel = has_kernel(device)
    if kernel and causal and (frame is not None or row.prefixes.any()):
        arrays |= {"keys": _key_index(row), "key_offsets": _offsets(key_lengths)}
    tensors = _together(arrays, device)
    packing = Packing(
        runs=row.runs() if frame is None else (),
        offsets=tensors["offsets"],
        longest=int(row.lengths.max()) if frame is None else frame.longest,
        longest_keys=int(key_lengths.max()) if frame is None else frame.longest,
        score_at=tensors["score_at"].long(),
        scored_offsets=tensors["scored"],
        causal=causal,
        keys=Keys(tensors["keys"].long(), tensors["key_offsets"]) if "keys" in tensors else None,
        kernel=kernel,
        windows=kernel and "window_size" in kernel_parameters(),
    )
    return ModelInputs(tensors["ids"][None], tensors["positions"][None], tensors["types"][None], packing)


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether torch's variable-length attention runs on the device: its flash kernel needs Ampere or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def kernel_parameters() -> frozenset[str]:
    """What torch's variable-length attention takes: windows, scales and shared heads came one after the other."""
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def _offsets(lengths: Index) -> Index:
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))


def _key_index(row: TokenRow) -> Index:
    """The tokens that each segment's queries attend to, segment by segment, the shared ones first."""
    counts = row.lengths + row.prefixes
    first = row.starts if row.parents is None else np.where(row.parents < 0, row.starts, row.starts[row.parents])
    place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    before = np.repeat(row.prefixes, counts)
    own = np.repeat(row.starts, counts) + place - before
    index: Index = np.where(place < before, np.repeat(first, counts) + place, own)
    return index


def _together(arrays: dict[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Integers as int32 tensors on the device, by one asynchronous copy.

    torch reuses the pinned memory only after the copy has finished. Each tensor begins at a multiple of 16 bytes, the
    alignment that compiled kernels assume.
    """
    sizes = [len(values) for values in arrays.values()]
    places = [-(-size // 4) * 4 for size in sizes]
    pinned = device.type == "cuda"  # on other devices an asynchronous copy could read memory that is already freed
    buffer = torch.empty(sum(places), dtype=torch.int32, pin_memory=pinned)
    flat, start = buffer.numpy(), 0
    for values, place in zip(arrays.values(), places, strict=True):
        flat[start : start + len(values)] = values
        start += place
    parts = torch.split(buffer.to(device, non_blocking=pinned), places)
    return {name: part[:size] for name, part, size in zip(arrays, parts, sizes, strict=True)}


def padded(row: TokenRow, device: torch.device, pad: int) -> dict[str, Tensor]:
    """A row without shared prefixes as a right-padded batch: `input_ids`, `attention_mask`, `token_type_ids`."""
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
