"""The trained model as a folder that `rerank run`, FlagEmbedding and sentence-transformers load.

The base's own files are copied and its weights written anew, so that every program reads the folder as it reads the
base. A profile says how pairs were read in training.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import save_file
from torch import Tensor

from rerank_cli.errors import OutputError
from rerank_cli.models.adapters import NAME
from rerank_cli.models.checkpoint import ADAPTER_BASE, Checkpoint, read_object, weights_mark
from rerank_cli.models.known import ENCODER, MODULAR
from rerank_cli.models.loading import silent
from rerank_cli.models.prompts.profiles import SAVED_PROFILE
from rerank_cli.models.reading.choosing import OF_FILE
from rerank_cli.training.setup import OpenModel

ADAPTER_FOLDER = "adapter"
_COPIED = frozenset((".json", ".txt", ".model", ".jinja", ".py"))
_NOT_COPIED = ("adapter_config.json", ADAPTER_BASE, SAVED_PROFILE, "rerank_training.json", "trainer_state.json")


def export(opened: OpenModel, folder: Path, *, merge: bool = True) -> None:
    """Write the model into a folder, which is made if necessary.

    With an adapter, `merge` writes merged weights and the adapter in a folder of its own; otherwise only the adapter is
    written, which loads beside the base. There is none for an encoder of several modules, for a base that nobody else
    has, and for one that had an adapter before. Weights are in the dtype that the base states. Raises OutputError.
    """
    checkpoint = opened.recipe.checkpoint
    given = opened.recipe.family != MODULAR and not checkpoint.made and checkpoint.adapter is None
    stands_alone = opened.trainable.adapter is not None and given
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if merge or not stands_alone:
            _copy(checkpoint, folder)
            _write_weights(opened, folder)
        else:
            _copy_tokenizer(checkpoint, folder)
        if stands_alone:
            _write_adapter(opened, folder / ADAPTER_FOLDER if merge else folder)
        for place in (folder, folder / ADAPTER_FOLDER):
            if place.is_dir():
                _write_reading(opened, place)
    except OSError as error:
        raise OutputError(f"{folder}: the model cannot be written ({error.strerror or error})") from error


def _copy(checkpoint: Checkpoint, folder: Path) -> None:
    """Everything but weights, of the folder and of its modules' folders; code is copied as a file and never run."""
    for path in (*checkpoint.folder.glob("*"), *checkpoint.folder.glob("[0-9]_*/*")):
        inside = path.relative_to(checkpoint.folder)
        wanted = path.suffix in _COPIED and not path.name.endswith(".index.json") and path.name not in _NOT_COPIED
        if path.is_file() and wanted:
            (folder / inside).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / inside)


def _copy_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    for path in checkpoint.folder.glob("*"):
        if path.is_file() and ("token" in path.name or path.name in {"vocab.txt", "vocab.json", "merges.txt"}):
            shutil.copyfile(path, folder / path.name)


def _write_weights(opened: OpenModel, folder: Path) -> None:
    config = opened.recipe.checkpoint.config
    stated = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    dtype = stated if isinstance(stated, torch.dtype) else torch.float32
    weights: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)  # of modules with a folder of their own
    for part in opened.trainable.stored:
        tensor = part.merged()
        tensor = tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        module, inside, name = part.name.partition("/")
        if inside:
            parts[module][name] = tensor
        else:
            weights[part.name] = tensor
    rebuild = opened.trainable.rebuild
    if rebuild is not None:
        empty = rebuild()
        text = (folder / "config.json").read_bytes()
        with silent():
            empty.save_pretrained(folder, state_dict=weights)
        (folder / "config.json").write_bytes(text)  # as it was: older programs cannot read what newer ones write
        (folder / "generation_config.json").unlink(missing_ok=True)
        original = opened.recipe.checkpoint.folder / "generation_config.json"
        if original.is_file():
            shutil.copyfile(original, folder / original.name)
    else:
        _save_sharded(weights, folder)
    for module, tensors in parts.items():
        save_file(tensors, folder / module / "model.safetensors", metadata={"format": "pt"})


def _save_sharded(weights: dict[str, Tensor], folder: Path) -> None:
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict(weights, folder, max_shard_size="20GB")


def _write_adapter(opened: OpenModel, folder: Path) -> None:
    """The adapter with the modules that are trained whole, as peft writes it, and the base that it belongs to."""
    folder.mkdir(exist_ok=True)
    checkpoint = opened.recipe.checkpoint
    # A module's last layer was renamed when it was taken apart; the names noted before are those of the base.
    tensors = {
        "base_model.model." + name.replace(f".modules_to_save.{NAME}.", ".").replace(f".{NAME}.", "."): weight
        for name, weight in opened.trainable.named.items()
        if "/" not in name
    }
    save_file(
        {name: weight.detach().float().cpu().contiguous() for name, weight in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    settings: Any = opened.trainable.adapter.peft_config[NAME]
    trains, settings.inference_mode = settings.inference_mode, True
    settings.save_pretrained(str(folder))
    settings.inference_mode = trains
    base = {"base": checkpoint.name, "revision": checkpoint.revision, "weights": weights_mark(checkpoint.folder)}
    (folder / ADAPTER_BASE).write_bytes(orjson.dumps(base, option=orjson.OPT_INDENT_2))


def _write_reading(opened: OpenModel, folder: Path) -> None:
    """The profile that pairs were read by, with the length; and the length for sentence-transformers.

    A base whose own files state how pairs are read keeps them, and gets no profile.
    """
    reading, limits = opened.recipe.reading, opened.limits
    if opened.recipe.family in {ENCODER, MODULAR}:
        path = folder / "tokenizer_config.json"
        if path.is_file():
            settings = read_object(path) | {"model_max_length": limits.max_length}
            path.write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2))
    source = reading.sources["profile"]
    if source.startswith(OF_FILE) and not source.endswith(SAVED_PROFILE):
        return
    share = limits.query_max_length / limits.max_length
    same = int(limits.max_length * reading.profile.query_share) == limits.query_max_length
    profile = replace(
        reading.profile, max_length=limits.max_length, query_share=reading.profile.query_share if same else share
    )
    settings = {name: value for name, value in asdict(profile).items() if value is not None}
    (folder / SAVED_PROFILE).write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2))
