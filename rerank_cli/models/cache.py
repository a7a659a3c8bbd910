"""Whether a Hub model lies in the local cache."""

from __future__ import annotations

from huggingface_hub import try_to_load_from_cache

from rerank_cli.models.checkpoint import MINI

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def on_disk(name: str) -> bool:
    """True for the built-in model and for one whose configuration and weights are cached."""
    if name == MINI:
        return True
    return all(
        any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
        for files in (("config.json",), _WEIGHTS)
    )
