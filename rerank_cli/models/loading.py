"""Loads a checkpoint into stock transformers classes; chooses packed or padded rows."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
import orjson
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from rerank_cli.errors import ModelError
from rerank_cli.models.attention.packed import register
from rerank_cli.models.checkpoint import Checkpoint, one_line
from rerank_cli.models.inputs import Placement
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.tensors import TensorFiles, refuse_non_finite, unreadable
from rerank_cli.models.translated import GTE_NEW, XLMR_FLASH, stock_names

_LAYER = re.compile(r"(?:^|\.)(layers?|h|blocks)\.(\d+)\.")


class _Scores(Protocol):
    def score(self, row: TokenRow) -> Tensor: ...


Packed = TypeVar("Packed", bound=_Scores)
Padded = TypeVar("Padded", bound=_Scores)
AnyModel = TypeVar("AnyModel", bound=nn.Module)


@contextmanager
def silent() -> Iterator[None]:
    """Let transformers print nothing meanwhile: no warnings, no progress bars."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@silent()
def stock_config(checkpoint: Checkpoint) -> Any:
    """The configuration as transformers reads it. Raises ModelError if transformers cannot read it."""
    try:
        if checkpoint.own_type is not None:
            return CONFIG_MAPPING[checkpoint.config["model_type"]].from_dict(dict(checkpoint.config))
        return AutoConfig.from_pretrained(str(checkpoint.folder), trust_remote_code=False)
    except StrictDataclassError as error:
        raise ModelError(f"{checkpoint.name}: config.json: {_misfit(error, checkpoint)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{checkpoint.name}: unusable config.json ({one_line(error)})") from error


def _misfit(error: StrictDataclassError, checkpoint: Checkpoint) -> str:
    """What transformers does not accept in a configuration: a field with its value and its types, or its own reason."""
    field = re.search(r"for field '(\w+)'", str(error))
    if field is None:
        return one_line(error.__cause__ or error)
    types = dict.fromkeys(re.findall(r"expected (\w+), got", str(error)))
    expected = f", expected {' or '.join(types).replace('NoneType', 'null')}" if types else ""
    value = orjson.dumps(checkpoint.config.get(field[1])).decode()
    return f"unusable {field[1]} (got {value}{expected})"


@silent()
def load_stock(
    stock: Any,
    checkpoint: Checkpoint,
    placement: Placement,
    attention: str | None,
    config: PretrainedConfig | None = None,
) -> PreTrainedModel:
    """A stock class (or an Auto class) with the checkpoint's weights, loaded directly in the target dtype.

    Tensors unknown to the class are not read, and refused if the checkpoint is of a type of its own. Raises ModelError
    if a tensor is missing or not finite, or if there are more layers than the configuration says.
    """
    register()
    kwargs: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if config is None and checkpoint.own_type is not None:
        config = stock_config(checkpoint)
    if config is not None:
        kwargs["config"] = config
    source: str | None = str(checkpoint.folder)
    if checkpoint.own_type == XLMR_FLASH:
        source, stock = None, stock._model_mapping[type(config)]
        kwargs["state_dict"] = _renamed(checkpoint)
    try:
        model, info = stock.from_pretrained(
            source,
            dtype=placement.dtype,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **kwargs,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # safetensors, transformers and torch have no common base class for a corrupt file
        raise unreadable(f"{checkpoint.name}: the weights cannot be loaded", error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{checkpoint.name}: weights lack {len(missing)} tensors ({', '.join(missing[:3])}, …)")
    unknown = sorted(info["unexpected_keys"])
    if unknown and checkpoint.own_type in {GTE_NEW, XLMR_FLASH}:
        what = f"{len(unknown)} tensors have no place in the stock class ({', '.join(unknown[:3])}, …)"
        raise ModelError(f"{checkpoint.name}: type {checkpoint.own_type}: {what}")
    _refuse_more_layers(model, sorted(info["unexpected_keys"]), checkpoint)
    found: PreTrainedModel = model.eval().requires_grad_(False).to(placement.of_weights)
    refuse_non_finite(found.named_parameters(), checkpoint)
    return found


def _renamed(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors by their stock names. Raises ModelError if one cannot be read or divided."""
    files = TensorFiles(checkpoint)
    found: dict[str, Tensor] = {}
    for name in files.names:
        names, tensor = stock_names(name), files.read(name)
        if len(tensor) % len(names):
            raise ModelError(f"{checkpoint.name}: {name} is no fusion of {len(names)} equal parts ({len(tensor)} rows)")
        found |= dict(zip(names, tensor.chunk(len(names)), strict=True))
    return found


def _refuse_more_layers(model: PreTrainedModel, unknown: Iterable[str], checkpoint: Checkpoint) -> None:
    """Raise ModelError if weights of the model's own stack of layers are left out, because config.json counts fewer."""
    stated = checkpoint.config.get("num_hidden_layers")  # the model's own count is lower with `--cutoff-layers`
    count = stated if isinstance(stated, int) else getattr(model.config, "num_hidden_layers", None)
    base = f"{model.base_model_prefix}."
    stacks = {name[: match.start(2)] for name, _ in model.named_parameters() if (match := _LAYER.search(name))}
    for name in unknown:
        match = _LAYER.search(name)
        if count is None or match is None or int(match[2]) < count:
            continue
        stack = name[: match.start(2)]
        if count < 1 or not stacks.isdisjoint({stack, base + stack, stack.removeprefix(base)}):
            what = f"weights have a layer {match[2]} ({name})"
            raise ModelError(f"{checkpoint.name}: {what}, config.json states num_hidden_layers {count}")


@silent()
def merge_adapter(model: AnyModel, checkpoint: Checkpoint) -> AnyModel:
    """The model with the checkpoint's PEFT adapter merged into its weights."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError("an adapter needs peft. Fix: pip install 'rerank-cli[peft]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about peft's own use of transformers
            merged: AnyModel = PeftModel.from_pretrained(model, str(checkpoint.adapter)).merge_and_unload()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # peft, safetensors and torch have no common base class for an unsuitable adapter
        raise unreadable(f"{checkpoint.adapter}: the adapter cannot be merged", error) from error
    refuse_non_finite(merged.named_parameters(), replace(checkpoint, name=str(checkpoint.adapter)))
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
