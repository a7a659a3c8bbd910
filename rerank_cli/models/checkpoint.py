"""Resolves a model's name to files on disk: a folder, the built-in `mini`, or a model on the Hugging Face Hub.

Only data is fetched and read: configuration, tokenizer and weights, never code. Independent of the model families.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from huggingface_hub import try_to_load_from_cache

from rerank_cli.errors import ModelError, RerankError
from rerank_cli.models.known import meant_by
from rerank_cli.models.translated import translated

MINI = "mini"
_MODULE_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
_ADAPTER = "adapter_config.json"
ADAPTER_BASE = "rerank_adapter.json"  # the base that an adapter was trained on
_TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_OTHER_BACKENDS = ["onnx/*", "openvino/*", "coreml/*", "*/*.bin", "*/*.safetensors"]
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a sentence-transformers checkpoint: its class name, its folder and its config.json."""

    kind: str
    folder: Path
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk. `revision` is the Hub commit, or a hash of a local folder's contents.

    `adapter` is the folder of a PEFT adapter to merge into it; the revision then covers the adapter too. `modules` are
    the entries of sentence-transformers' `modules.json`, empty without that file. It is `made` if it was made of the
    named one for training, so that nobody else has it. `own_type` is the type that config.json states if that is not
    one of transformers'; `config` is then that of the stock type with the same layers.
    """

    name: str
    folder: Path
    revision: str
    config: Mapping[str, Any]
    adapter: Path | None = None
    modules: tuple[Module, ...] = ()
    made: bool = False
    own_type: str | None = None


def resolve(name: str, revision: str | None = None, adapter: str | None = None, *, weights: bool = True) -> Checkpoint:
    """Find the checkpoint and the adapter; with `weights=False` only configuration and tokenizer are fetched.

    If the name itself is an adapter, the result is its base model with the adapter. Raises ModelError if the model does
    not exist, access is denied, or there is neither a network connection nor a copy on disk.
    """
    if adapter is None and revision is None and (base := _base_of_adapter(name)):
        found = resolve(base, adapter=name, weights=weights)
        return replace(found, name=name)
    folder, mark = _locate(name, revision, weights=weights)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name}: no config.json in {folder}")
    config, own = translated(read_object(folder / "config.json"), name)
    found = Checkpoint(name, folder, mark, config, modules=_modules(folder), own_type=own)
    _refuse_outside(folder)
    if adapter is None:
        return found
    folder, mark = _locate(adapter, None, weights=weights)
    if not (folder / _ADAPTER).is_file():
        raise ModelError(f"{adapter}: not a PEFT adapter (expected {_ADAPTER})")
    if weights:
        _refuse_other_base(found, folder)
    return replace(found, adapter=folder, revision=f"{found.revision}+{mark}")


def _base_of_adapter(name: str) -> str | None:
    """The base model of a local adapter folder; None for any other name."""
    folder = _local_folder(name)
    if folder is None or (folder / "config.json").is_file() or not (folder / _ADAPTER).is_file():
        return None
    base = read_object(folder / _ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{name}: the adapter does not name its base model. Fix: --model MODEL --adapter {name}")
    return base


def _locate(name: str, revision: str | None, *, weights: bool) -> tuple[Path, str]:
    """The folder and the revision of a local folder or a Hub id."""
    folder = _local_folder(name)
    if folder is None:
        return _from_hub(name, revision, weights=weights)
    if revision is not None:
        raise ModelError(f"{name}: a folder has no revisions. Fix: leave out --revision")
    return folder, _folder_hash(folder)


def _local_folder(name: str) -> Path | None:
    """The folder that a name stands for, or None for a Hub id. Raises ModelError for a path that does not exist."""
    if name == MINI:
        return Path(__file__).parent.parent / "checkpoints" / MINI
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists()
    if looks_local or not name:
        raise ModelError(f"{name or '--model is empty'}: no such model folder (expected a folder with config.json)")
    return None


def read_object(path: Path, failure: type[RerankError] = ModelError) -> dict[str, Any]:
    """The JSON object in a file, {} if the file is missing. Raises `failure` if it holds anything else."""
    try:
        found = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise failure(f"{path}: unreadable configuration ({error})") from error
    if not isinstance(found, dict):
        raise failure(f"{path}: not a configuration (got {type(found).__name__}, expected an object)")
    return found


def _refuse_outside(folder: Path) -> None:
    """Raise ModelError if an index of weights names a file outside the folder. Symbolic links inside it are followed,
    as those of the Hub's cache are.
    """
    for path in (*folder.glob("*.safetensors.index.json"), *folder.glob("*.bin.index.json")):
        files = read_object(path).get("weight_map")
        if not isinstance(files, dict):
            raise ModelError(f"{path}: not an index of weights (expected an object `weight_map`)")
        for file in sorted(set(map(str, files.values()))):
            if Path(file).is_absolute() or ".." in Path(file).parts:
                raise ModelError(f"{path}: names a file outside the model's folder ({file}), which is never read")


def _modules(folder: Path) -> tuple[Module, ...]:
    """The entries of `modules.json`, none without that file. Paths that lead out of the folder are refused.

    A class that is not of sentence-transformers, and would be code from the checkpoint, keeps its whole name as kind.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    try:
        listed = [(str(entry["type"]), Path(str(entry["path"]))) for entry in orjson.loads(path.read_bytes())]
    except (OSError, orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: unreadable list of modules ({error})") from error
    for _, inside in listed:
        if ".." in inside.parts or inside.is_absolute():
            raise ModelError(f"{path}: a module is outside the model's folder ({inside})")
    return tuple(
        Module(
            kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind,
            folder / inside,
            read_object(folder / inside / "config.json"),
        )
        for kind, inside in listed
    )


def _folder_hash(folder: Path) -> str:
    """A hash of a folder's configuration and tokenizer, and of its weight files' sizes and sampled blocks.

    Reads at most a megabyte of each file, so that large models do not delay the start.
    """
    digest = hashlib.blake2b(digest_size=16)
    suffixes = {".json", ".safetensors", ".bin", ".model", ".txt"}
    if (folder / "modules.json").is_file():  # only then is a chat template read
        suffixes.add(".jinja")
    for path in sorted([*folder.glob("*"), *folder.glob("[0-9]_*/*")]):
        if path.suffix not in suffixes or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}:{size}:".encode())
        digest.update(_sampled(path))
    return digest.hexdigest()


def _sampled(path: Path) -> bytes:
    """Sixteen blocks of a file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        blocks = []
        for block in range(16):
            file.seek(block * size // 16)
            blocks.append(file.read(65536))
    return b"".join(blocks)


def _refuse_other_base(base: Checkpoint, adapter: Path) -> None:
    """Raise ModelError if the adapter says that it was trained on other weights."""
    stated = read_object(adapter / ADAPTER_BASE)
    if stated and stated.get("weights") != weights_mark(base.folder):
        trained = f"{stated.get('base')}, revision {stated.get('revision')}"
        raise ModelError(f"{adapter}: trained on other weights than those of {base.name}. Fix: --model with {trained}")


def weights_mark(folder: Path) -> str:
    """A hash of the sizes and of sampled blocks of a folder's weight files."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.glob("*") if path.suffix in {".safetensors", ".bin"}):
        digest.update(_sampled(path))
    return digest.hexdigest()


def _from_hub(name: str, revision: str | None, *, weights: bool) -> tuple[Path, str]:
    from huggingface_hub import errors, snapshot_download

    def fetch(*patterns: str) -> Path:
        wanted = [*_TEXT_FILES, *patterns]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=_OTHER_BACKENDS))

    # The root of the HTTP library's errors, such as time-outs and broken downloads.
    transport_error: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    try:
        folder = fetch("*.safetensors") if weights else fetch()
        if weights and not any(folder.glob("*.safetensors")):
            folder = fetch("*.bin")
        if weights and (folder / "modules.json").is_file():
            snapshot_download(name, revision=revision, allow_patterns=[f"[0-9]_*/{file}" for file in _MODULE_FILES])
    except errors.GatedRepoError as error:
        raise ModelError(f"{name}: access must be granted on its Hub page first. Fix: log in with HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{name}: no revision {revision!r} on the Hub") from error
    except errors.RepositoryNotFoundError as error:
        raise _not_found(name, "no such model on the Hub, and no such folder here", "") from error
    except errors.HFValidationError as error:
        what = "neither a folder nor a Hub id (expected NAME, owner/NAME or a path)"
        raise _not_found(name, what, "") from error
    except errors.LocalEntryNotFoundError as error:
        what = "the Hub cannot be reached and the model is not on disk"
        raise _not_found(name, what, "check the network, set HF_ENDPOINT, or use mini or a folder") from error
    except (transport_error, OSError) as error:
        raise ModelError(f"{name}: download failed ({one_line(error)})") from error
    return folder, folder.name


def _not_found(name: str, what: str, fix: str) -> ModelError:
    """The error about a model that is not there, with the known model that the name probably means."""
    meant = meant_by(name)
    fix = f"{meant}, as rerank models lists it" if meant else fix
    return ModelError(f"{name}: {what}. Fix: {fix}" if fix else f"{name}: {what}")


def on_disk(name: str) -> bool:
    """True for the built-in model and for one whose configuration and weights are cached."""
    return name == MINI or all(
        any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
        for files in (("config.json",), _WEIGHTS)
    )


def one_line(error: BaseException) -> str:
    """An error's message on one line of at most 300 characters; its type if the message is empty."""
    return " ".join(str(error).split())[:300] or type(error).__name__
