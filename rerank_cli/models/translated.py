"""Checkpoints of types whose code is in the checkpoint, read as those of the stock types with the same layers.

Only settings and names of tensors are translated. A setting that the stock type does not have is refused, so that no
score is silently another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rerank_cli.errors import ModelError

LLAMA_BIDIRECTIONAL, GTE_NEW, XLMR_FLASH = "llama_bidirec", "new", "xlm-roberta-flash"
JINA_RANKING = "JinaForRanking"  # an architecture, of type qwen3


def translated(config: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str | None]:
    """The configuration of the stock type, and the type that it stated; itself and None for all others.

    Raises ModelError for a setting that the stock type does not have.
    """
    own = str(config.get("model_type", ""))
    settings = {name: value for name, value in config.items() if name != "auto_map"}
    if own == LLAMA_BIDIRECTIONAL:
        # `is_causal` makes transformers build the mask of an encoder.
        return {"is_causal": False} | settings | {"model_type": "llama", "use_cache": False}, own
    if JINA_RANKING in (config.get("architectures") or []):
        return settings, JINA_RANKING
    if own == GTE_NEW and "NewForSequenceClassification" in (config.get("architectures") or []):
        return _gte(settings, where), own
    if "XLMRobertaFlashConfig" in str(config.get("auto_map")):
        known = {"position_embedding_type": "absolute", "hidden_act": "gelu", "lora_adaptations": None}
        _refuse_others(settings, known | {"emb_pooler": None}, f"{where}: type {XLMR_FLASH}")
        return settings | {"model_type": "xlm-roberta"}, XLMR_FLASH
    return config, None


def _refuse_others(settings: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    for name, expected in known.items():
        if settings.get(name, expected) != expected:
            raise ModelError(f"{what} with {name} {settings[name]!r} is not supported (expected {expected!r})")


def _gte(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Alibaba's type `new` as transformers' `gte`. Its scaled positions are a larger base and a linear factor.

    Source: `NTKScalingRotaryEmbedding` of `Alibaba-NLP/new-impl`.
    """
    what = f"{where}: type {GTE_NEW}"
    known = {"position_embedding_type": "rope", "layer_norm_type": "layer_norm", "logn_attention_scale": False}
    _refuse_others(settings, known, what)
    theta, scaling = settings.pop("rope_theta", 10_000.0), settings.pop("rope_scaling", None)
    positions: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if scaling is not None:
        try:
            _refuse_others(scaling, {"type": "ntk", "mixed_b": None}, f"{what}, rope_scaling")
            factor, size = float(scaling["factor"]), settings["hidden_size"] // settings["num_attention_heads"]
            positions = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / size)}
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise ModelError(f"{what} with rope_scaling {scaling!r} cannot be read") from error
    return settings | {"model_type": "gte", "rope_parameters": positions}


# Source: `convert_roberta_weights_to_flash.py` of `jinaai/xlm-roberta-flash-implementation`, the other way round.
_FLASH = (
    (r"^roberta\.emb_ln\.", "roberta.embeddings.LayerNorm."),
    (r"^roberta\.encoder\.layers\.", "roberta.encoder.layer."),
    (r"\.mixer\.out_proj\.", ".attention.output.dense."),
    (r"\.norm1\.", ".attention.output.LayerNorm."),
    (r"\.norm2\.", ".output.LayerNorm."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def stock_names(name: str) -> tuple[str, ...]:
    """The stock names of a tensor of `XLMR_FLASH`: one, or those of the equal parts of its first axis."""
    for pattern, replacement in _FLASH:
        name = re.sub(pattern, replacement, name)
    if ".mixer.Wqkv." not in name:
        return (name,)
    return tuple(name.replace(".mixer.Wqkv.", f".attention.self.{part}.") for part in ("query", "key", "value"))
