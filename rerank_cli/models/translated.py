"""Configurations of types whose code is in the checkpoint, written as those of the stock types with the same layers.

Nothing but settings is read. A setting that the stock type does not have is refused, so that no score is silently
another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LLAMA_BIDIRECTIONAL = "llama_bidirec"


def translated(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """The configuration of the stock type, and the type that it stated; itself and None for all others."""
    own = str(config.get("model_type", ""))
    if own == LLAMA_BIDIRECTIONAL:
        # `is_causal` makes transformers build the mask of an encoder.
        return {"is_causal": False} | _without_code(config) | {"model_type": "llama", "use_cache": False}, own
    return config, None


def _without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "auto_map"}
