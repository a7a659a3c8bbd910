"""From a name to files on disk: a folder, the built-in `mini`, or a model on the Hugging Face Hub.

Only data is fetched and read: configuration, tokenizer and weights, never code. Knows nothing of what a family does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from huggingface_hub import try_to_load_from_cache

from rerank_cli.errors import ModelError

MINI = "mini"
_MODULE_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
_ADAPTER = "adapter_config.json"
_TEXT_FILES = ["*.json", "*.txt", "*.model"]
_OTHER_BACKENDS = ["onnx/*", "openvino/*", "coreml/*", "*/*.bin", "*/*.safetensors"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk. `revision` is the Hub commit, or a hash that stands for a local folder's contents.

    `adapter` is the folder of a PEFT adapter to be merged into it; the revision stands for that too. `modules` are what
    sentence-transformers' `modules.json` lists, if there is one.
    """

    name: str
    folder: Path
    revision: str
    config: Mapping[str, Any]
    adapter: Path | None = None
    modules: tuple[Module, ...] = ()


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a sentence-transformers checkpoint: the name of its class, its folder and what config.json says."""

    kind: str
    folder: Path
    config: Mapping[str, Any]


def resolve(name: str, revision: str | None = None, adapter: str | None = None, *, weights: bool = True) -> Checkpoint:
    """Find the checkpoint and the adapter; with `weights=False` only configuration and tokenizer are fetched.

    A name that is an adapter itself means the model it was made for, with it. Raises ModelError when there is no such
    model, no access, or no network and nothing on disk.
    """
    if adapter is None and revision is None and (base := _base_of_adapter(name)):
        found = resolve(base, adapter=name, weights=weights)
        return replace(found, name=name)
    found = _resolve(name, revision, weights=weights)
    if adapter is None:
        return found
    folder = local_folder(adapter)
    folder, mark = (folder, folder_identity(folder)) if folder else _from_hub(adapter, None, weights=weights)
    if not (folder / _ADAPTER).is_file():
        raise ModelError(f"{adapter}: not a PEFT adapter (expected {_ADAPTER})")
    return replace(found, adapter=folder, revision=f"{found.revision}+{mark}")


def _base_of_adapter(name: str) -> str | None:
    """The model that a local folder without one of its own adapts."""
    folder = local_folder(name)
    if folder is None or (folder / "config.json").is_file() or not (folder / _ADAPTER).is_file():
        return None
    base = _read_object(folder / _ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{name}: the adapter does not name its model. Fix: --model MODEL --adapter {name}")
    return base


def _resolve(name: str, revision: str | None, *, weights: bool) -> Checkpoint:
    folder = local_folder(name)
    if folder is None:
        folder, commit = _from_hub(name, revision, weights=weights)
        return Checkpoint(name, folder, commit, read_config(folder, name), modules=read_modules(folder))
    if revision is not None:
        raise ModelError(f"{name}: a folder has no revisions. Fix: leave out --revision")
    return Checkpoint(name, folder, folder_identity(folder), read_config(folder, name), modules=read_modules(folder))


def local_folder(name: str) -> Path | None:
    """The folder a name means, or None for a Hub id. A path that is not there is an error, not a Hub id."""
    if name == MINI:
        return Path(__file__).parent.parent / "checkpoints" / MINI
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists()
    if looks_local or not name:
        raise ModelError(f"{name or '--model is empty'}: no such model folder (expected a folder with config.json)")
    return None


def read_config(folder: Path, name: str) -> dict[str, Any]:
    try:
        return _read_object(folder / "config.json")
    except FileNotFoundError:
        raise ModelError(f"{name}: no config.json in {folder}") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        config = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelError(f"{path}: unreadable configuration ({error})") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: not a configuration (got {type(config).__name__}, expected an object)")
    return config


def read_modules(folder: Path) -> tuple[Module, ...]:
    """What `modules.json` lists, none where it is missing. Paths that lead out of the folder are refused."""
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    try:
        listed = [(str(entry["type"]), str(entry["path"])) for entry in orjson.loads(path.read_bytes())]
    except (OSError, orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: unreadable list of modules ({error})") from error
    found = []
    for kind, place in listed:
        inside = folder / place
        if ".." in Path(place).parts or Path(place).is_absolute():
            raise ModelError(f"{path}: a module lies outside the model's folder ({place})")
        config = inside / "config.json"
        found.append(Module(kind.rpartition(".")[2], inside, _read_object(config) if config.is_file() else {}))
    return tuple(found)


def folder_identity(folder: Path) -> str:
    """A hash of a folder's configuration, tokenizer, and its weights' sizes and sampled blocks.

    Reads at most a megabyte of each weight file, so that it stays instant for large models.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([*folder.glob("*"), *folder.glob("[0-9]_*/*")]):
        if path.suffix not in {".json", ".safetensors", ".bin", ".model", ".txt"} or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}:{size}:".encode())
        with path.open("rb") as file:
            for block in range(16):
                file.seek(block * size // 16)
                digest.update(file.read(65536))
    return digest.hexdigest()


def _transport_error() -> type[Exception]:
    """The root of the HTTP library's errors, whichever one this huggingface_hub uses: time-outs and torn downloads."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__mro__[1]


def _from_hub(name: str, revision: str | None, *, weights: bool) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch(*patterns: str) -> Path:
        wanted = [*_TEXT_FILES, *patterns]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=_OTHER_BACKENDS))

    try:
        folder = fetch("*.safetensors") if weights else fetch()
        if weights and not any(folder.glob("*.safetensors")):
            folder = fetch("*.bin")
        if weights and (folder / "modules.json").is_file():
            snapshot_download(name, revision=revision, allow_patterns=[f"[0-9]_*/{file}" for file in _MODULE_FILES])
    except GatedRepoError as error:
        raise ModelError(f"{name}: access must be granted on its Hub page first. Fix: log in with HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name}: no revision {revision!r} on the Hub") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name}: no such model on the Hub, and no such folder here") from error
    except HFValidationError as error:
        raise ModelError(f"{name}: neither a folder nor a Hub id (expected NAME, owner/NAME or a path)") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{name}: the Hub cannot be reached and the model is not on disk. "
            "Fix: check the network, set HF_ENDPOINT, or use --model mini or a folder"
        ) from error
    except (_transport_error(), OSError) as error:
        raise ModelError(f"{name}: download failed ({' '.join(str(error).split())[:200]})") from error
    return folder, folder.name


_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def on_disk(name: str) -> bool:
    """True for the built-in model and for one whose configuration and weights are cached."""
    if name == MINI:
        return True
    return all(
        any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
        for files in (("config.json",), _WEIGHTS)
    )
