"""The tensors of a checkpoint's weight files, one by one or all of a module.

Only tensors are read, never code: safetensors files, or torch files with `weights_only`. Weights that are not finite
are refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint, one_line


def refuse_non_finite(tensors: Iterable[tuple[str, Tensor]], checkpoint: Checkpoint) -> None:
    """Raise ModelError, which names the tensor, if one holds NaN or infinity: no score of such a model is finite."""
    floats = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floats:
        return
    for place in _suspects([tensor for _, tensor in floats]):
        name, tensor = floats[place]
        count = int((~tensor.isfinite()).sum())
        if not count:  # the sum overflowed
            continue
        stored = next((known for known in TensorFiles(checkpoint).names if f".{known}".endswith(f".{name}")), name)
        what = f"{stored} holds {count:,} values that are NaN or infinite, of {tensor.numel():,}"
        fix = ". Fix: --dtype fp32, if only fp16 cannot hold them" if tensor.dtype == torch.float16 else ""
        raise ModelError(f"{checkpoint.name}: {what}{fix}")


def _suspects(tensors: list[Tensor]) -> list[int]:
    """Indices of the tensors whose sum is not finite. A sum of finite values is finite unless it overflows."""
    sums = torch.stack([tensor.detach().sum(dtype=torch.float32) for tensor in tensors])
    found: list[int] = (~sums.isfinite()).nonzero().flatten().tolist()
    return found


def unreadable(what: str, error: Exception) -> ModelError:
    """The error about weights that cannot be read. torch's own message advises to run the code of a pickled file."""
    text = str(error)
    if not isinstance(error, pickle.UnpicklingError) and "weights_only" not in text:
        return ModelError(f"{what} ({one_line(error)})")
    code = re.search(r"GLOBAL ([\w.]+)|(TorchScript)", text)
    if code is None:
        return ModelError(f"{what} (a pickled file that is damaged, or not one of tensors)")
    why = f"a pickled file with code, {code[1] or code[2]}, which is never run"
    return ModelError(f"{what} ({why}). Fix: weights in safetensors")


def weights_of_module(folder: Path, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """The tensors of a module in a folder of its own. Raises ModelError if they cannot be read or are not finite."""
    path = folder / "model.safetensors"
    try:
        weights: Mapping[str, Tensor] = (
            load_file(path) if path.is_file() else torch.load(path.with_name("pytorch_model.bin"), weights_only=True)
        )
    except Exception as error:  # safetensors and torch have no common base class for a corrupt file
        raise unreadable(f"{checkpoint.name}: the weights in {folder.name} cannot be loaded", error) from error
    refuse_non_finite(weights.items(), checkpoint)
    return weights


class TensorFiles:
    """Single tensors of a checkpoint by name, from one weight file or several."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._where = checkpoint.name
        self._folder = checkpoint.folder

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def names(self) -> Iterable[str]:
        return self._files

    def read(self, name: str, rows: list[int] | None = None) -> Tensor:
        """The tensor in its stored dtype, or only these rows of it, in this order; ModelError if it is not finite."""
        tensor = self._read(name, rows)
        refuse_non_finite([(name, tensor)], self._checkpoint)
        return tensor

    def _read(self, name: str, rows: list[int] | None) -> Tensor:
        if name not in self._files:
            raise ModelError(f"{self._where}: weights lack {name}")
        path = self._folder / self._files[name]
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                if rows is None:
                    whole: Tensor = file.get_tensor(name)
                    return whole
                matrix = file.get_slice(name)
                return self._rows(name, matrix, matrix.get_shape()[0], rows)
        tensor = self._torch_file(path.name)[name]
        return tensor if rows is None else self._rows(name, tensor, len(tensor), rows)

    def _rows(self, name: str, matrix: Any, count: int, rows: list[int]) -> Tensor:
        if max(rows) >= count:
            raise ModelError(f"{self._where}: {name} has {count} rows, but the answer's token id is {max(rows)}")
        return torch.cat([matrix[row : row + 1] for row in rows])

    @cached_property
    def _files(self) -> dict[str, str]:
        """Name of the file that holds each tensor."""
        try:
            for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
                path = self._folder / index
                if path.is_file():
                    return dict(orjson.loads(path.read_bytes())["weight_map"])
            path = self._folder / "model.safetensors"
            if path.is_file():
                with safe_open(path, framework="pt") as file:
                    return dict.fromkeys(file.keys(), path.name)
            return dict.fromkeys(self._torch_file("pytorch_model.bin"), "pytorch_model.bin")
        except Exception as error:  # safetensors and torch have no common base class for a corrupt file
            raise unreadable(f"{self._where}: the weights cannot be read", error) from error

    def _torch_file(self, name: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.load(self._folder / name, map_location="cpu", weights_only=True, mmap=True)
        return found
