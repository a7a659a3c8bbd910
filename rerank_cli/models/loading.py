"""Loads a checkpoint's weights into stock transformers classes or as single tensors; chooses packed or padded rows.

Only tensors are read, never code: safetensors files, or torch files with `weights_only`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import orjson
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint, one_line
from rerank_cli.models.inputs import Placement
from rerank_cli.models.packed_row import TokenRow


class _Scores(Protocol):
    def score(self, row: TokenRow) -> Tensor: ...


Packed = TypeVar("Packed", bound=_Scores)
Padded = TypeVar("Padded", bound=_Scores)


def stock_config(checkpoint: Checkpoint) -> Any:
    """The configuration as transformers reads it. Raises ModelError if transformers cannot read it."""
    try:
        return AutoConfig.from_pretrained(str(checkpoint.folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{checkpoint.name}: unusable config.json ({one_line(error)})") from error


def load_stock(
    stock: Any,
    checkpoint: Checkpoint,
    placement: Placement,
    attention: str | None,
    config: PretrainedConfig | None = None,
) -> PreTrainedModel:
    """A stock class (or an Auto class) with the checkpoint's weights, loaded directly in the target dtype.

    Tensors unknown to the class are not read. Raises ModelError if a tensor is missing.
    """
    kwargs: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if config is not None:
        kwargs["config"] = config
    try:
        model, info = stock.from_pretrained(
            str(checkpoint.folder),
            dtype=placement.dtype,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **kwargs,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # safetensors, transformers and torch have no common base class for a corrupt file
        raise ModelError(f"{checkpoint.name}: the weights cannot be loaded ({one_line(error)})") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{checkpoint.name}: weights lack {len(missing)} tensors ({', '.join(missing[:3])}, …)")
    return model.eval().requires_grad_(False).to(placement.device)


def merge_adapter(model: PreTrainedModel, checkpoint: Checkpoint) -> PreTrainedModel:
    """The model with the checkpoint's PEFT adapter merged into its weights."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError("an adapter needs peft. Fix: pip install 'rerank-cli[peft]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about peft's own use of transformers
            merged: PreTrainedModel = PeftModel.from_pretrained(model, str(checkpoint.adapter)).merge_and_unload()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # peft, safetensors and torch have no common base class for an unsuitable adapter
        raise ModelError(f"{checkpoint.adapter}: the adapter cannot be merged ({one_line(error)})") from error
    return merged.eval().requires_grad_(False)


def packed_or_padded(
    packs: bool,
    load_packed: Callable[[], Packed],
    load_padded: Callable[[], Padded],
    *,
    tested: bool,
    shared: bool = False,
) -> Packed | Padded:
    """The packed model if its type `packs`, and either is `tested` or gives a probe row the padded model's scores.

    Otherwise the padded model. With `shared` the probe's sequences share a prefix.
    """
    if not packs:
        return load_padded()
    packed = load_packed()
    if tested:
        return packed
    padded = load_padded()
    lengths, parents = ([6, 5, 5], np.array([-1, 0, 0])) if shared else ([7, 7, 5, 3], None)
    ids = (np.arange(sum(lengths)) % 40 + 5).astype(np.int32)
    row = TokenRow(ids, np.zeros_like(ids), np.array(lengths), parents)
    try:
        left, right = packed.score(row).cpu(), padded.score(row).cpu()
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError):  # the forward does not accept a packed row
        return padded
    agree = bool(torch.isfinite(left).all()) and torch.allclose(left, right, atol=1e-2, rtol=1e-2)
    return packed if agree else padded


class TensorFiles:
    """Single tensors of a checkpoint by name, from one weight file or several."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._where = checkpoint.name
        self._folder = checkpoint.folder

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str, rows: list[int] | None = None) -> Tensor:
        """The tensor in its stored dtype, or only these rows of it, in this order."""
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
            raise ModelError(f"{self._where}: the weights cannot be read ({one_line(error)})") from error

    def _torch_file(self, name: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.load(self._folder / name, map_location="cpu", weights_only=True, mmap=True)
        return found
