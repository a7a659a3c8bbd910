"""Weights from a checkpoint's files into stock transformers classes, and single tensors beside them.

Only tensors are read, never code: safetensors, or torch's own files with `weights_only`.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import orjson
import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.inputs import Placement


def stock_config(checkpoint: Checkpoint) -> Any:
    """The configuration as transformers reads it; ModelError where it cannot."""
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
    """A stock class (or an Auto class) with the checkpoint's weights, straight in the target dtype.

    Tensors that the class has no place for are not read; one that is missing is a ModelError.
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
    except Exception as error:  # safetensors, transformers and torch share no root for "this file is no good"
        raise ModelError(f"{checkpoint.name}: the weights cannot be loaded ({one_line(error)})") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{checkpoint.name}: weights lack {len(missing)} tensors ({', '.join(missing[:3])}, …)")
    return model.eval().requires_grad_(False).to(placement.device)


def merge_adapter(model: PreTrainedModel, checkpoint: Checkpoint) -> PreTrainedModel:
    """The model with its checkpoint's PEFT adapter merged into the weights."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError("an adapter needs peft. Fix: pip install 'rerank-cli[peft]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what peft uses of transformers is its own affair
            merged: PreTrainedModel = PeftModel.from_pretrained(model, str(checkpoint.adapter)).merge_and_unload()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # peft, safetensors and torch share no root for "this adapter does not fit"
        raise ModelError(f"{checkpoint.adapter}: the adapter cannot be merged ({one_line(error)})") from error
    return merged.eval().requires_grad_(False)


class TensorFiles:
    """Single tensors of a checkpoint by name, from one weight file or several."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._where = checkpoint.name
        self._folder = checkpoint.folder

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> Tensor:
        """The whole tensor, as it is stored."""
        return self.rows(name, None)

    def rows(self, name: str, numbers: list[int] | None) -> Tensor:
        """These rows of a matrix alone, in this order."""
        if name not in self._files:
            raise ModelError(f"{self._where}: weights lack {name}")
        path = self._folder / self._files[name]
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                if numbers is None:
                    whole: Tensor = file.get_tensor(name)
                    return whole
                matrix = file.get_slice(name)
                self._refuse_beyond(numbers, matrix.get_shape()[0], name)
                return torch.cat([matrix[number : number + 1] for number in numbers])
        tensor: Tensor = self._torch_file(path.name)[name]
        if numbers is None:
            return tensor
        self._refuse_beyond(numbers, len(tensor), name)
        return tensor[numbers]

    def _refuse_beyond(self, numbers: list[int], rows: int, name: str) -> None:
        if max(numbers) >= rows:
            raise ModelError(f"{self._where}: {name} has {rows} rows, the tokenizer's answer is number {max(numbers)}")

    @cached_property
    def _files(self) -> dict[str, str]:
        """The file of each tensor."""
        try:
            for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
                path = self._folder / index
                if path.is_file():
                    return dict(orjson.loads(path.read_bytes())["weight_map"])
            path = self._folder / "model.safetensors"
            if path.is_file():
                from safetensors import safe_open

                with safe_open(path, framework="pt") as file:
                    return dict.fromkeys(file.keys(), path.name)
            return dict.fromkeys(self._torch_file("pytorch_model.bin"), "pytorch_model.bin")
        except ModelError:
            raise
        except Exception as error:  # safetensors and torch share no root for "this file is no good"
            raise ModelError(f"{self._where}: the weights cannot be read ({one_line(error)})") from error

    def _torch_file(self, name: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.load(self._folder / name, map_location="cpu", weights_only=True, mmap=True)
        return found


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
