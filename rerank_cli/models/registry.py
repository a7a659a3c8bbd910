"""Determines from its configuration files how a checkpoint is scored."""

from __future__ import annotations

from typing import Any

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.known import (
    BERT_TYPES,
    BIDIRECTIONAL,
    CLASSIFIER,
    DECODER,
    ENCODER,
    LAYERWISE,
    LIGHTWEIGHT,
    LISTWISE,
    MODULAR,
    SEQ2SEQ,
)
from rerank_cli.models.reading.labels import labels_of
from rerank_cli.models.stated import LOGIT_SCORE, stated_by
from rerank_cli.models.translated import JINA_RANKING, LLAMA_BIDIRECTIONAL

_ENCODER_DECODERS = ("t5", "mt5")
_LISTWISE = ("rankzephyr", "rankvicuna")
_AFTER_POOLING = {"Dense", "LayerNorm", "Normalize", "Dropout"}


def identify(checkpoint: Checkpoint) -> str:
    """The family that scores this checkpoint. Raises ModelError, one line with the reason, if none can."""
    config, where = checkpoint.config, checkpoint.name
    architectures = [str(name) for name in config.get("architectures") or []]
    named = ", ".join(architectures) or "none"
    model_type = str(config.get("model_type", ""))
    if "LayerWiseMiniCPMForCausalLM" in architectures or (model_type == "minicpm" and "start_layer" in config):
        return LAYERWISE
    if "CostWiseGemmaForCausalLM" in architectures or model_type == "cost_wise_gemma":
        return LIGHTWEIGHT
    causal = is_causal(checkpoint)
    kinds = [module.kind for module in checkpoint.modules]
    if checkpoint.own_type == LLAMA_BIDIRECTIONAL:
        _refuse_other_pooling(checkpoint, architectures)
        return BIDIRECTIONAL
    if checkpoint.own_type == JINA_RANKING:
        _refuse_other_lists(checkpoint)
        _refuse_other_modules(checkpoint, kinds, [])
        return LISTWISE
    if model_type in _ENCODER_DECODERS and any(name.endswith("ForConditionalGeneration") for name in architectures):
        _refuse_other_modules(checkpoint, kinds, [])
        if "duot5" in checkpoint.name.lower():
            raise ModelError(f"{where}: compares two passages at a time (duoT5), and gives no score for a pair")
        return SEQ2SEQ
    if causal and config.get("is_causal") is False:
        raise ModelError(f"{where}: type {model_type} without the causal mask is not supported (is_causal false)")
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        if model_type not in BERT_TYPES and model_type not in _stock().MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            if "auto_map" in config:
                raise ModelError(
                    f"{where}: model type {model_type!r} needs code from the checkpoint, which is never run"
                )
            raise ModelError(f"{where}: model type {model_type!r} is not one that transformers can load")
        _refuse_other_modules(checkpoint, kinds, ["Transformer"])
        return CLASSIFIER if causal else ENCODER
    if any(part in checkpoint.name.lower().replace("_", "") for part in _LISTWISE):
        raise ModelError(f"{where}: writes a permutation of a list of passages, and gives no score for a pair")
    language_model = _stock().MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if causal and any(name == language_model or name.endswith("ForCausalLM") for name in architectures):
        _refuse_other_modules(checkpoint, kinds, ["Transformer", LOGIT_SCORE])
        return DECODER
    one_output = kinds[-1:] == ["Dense"] and checkpoint.modules[-1].config.get("out_features") == 1
    if one_output and kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= _AFTER_POOLING:
        return MODULAR
    if "auto_map" in config:
        raise ModelError(f"{where}: needs code from the checkpoint ({named}), which is never run")
    raise ModelError(
        f"{where}: not a reranker (architectures: {named}, expected …ForSequenceClassification, or …ForCausalLM of a "
        "stock type, or T5). A bi-encoder gives no score for a pair"
    )


def is_causal(checkpoint: Checkpoint) -> bool:
    """Whether the model is of a causal type. Encoders such as BERT are listed as both masked and causal models."""
    model_type = str(checkpoint.config.get("model_type", ""))
    if model_type in BERT_TYPES:
        return False
    listed = model_type in _stock().MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return listed and model_type not in _stock().MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _stock() -> Any:
    """The types that transformers knows, by kind. Not imported for types that are known here: it takes a second."""
    from transformers.models.auto import modeling_auto

    return modeling_auto


def _refuse_other_modules(checkpoint: Checkpoint, kinds: list[str], expected: list[str]) -> None:
    """Raise ModelError if sentence-transformers saved a cross-encoder with other modules, which change its score."""
    if kinds != expected and stated_by(checkpoint).by_modules:
        what = f"modules.json lists {', '.join(kinds)} (expected {', '.join(expected)} for this architecture)"
        raise ModelError(f"{checkpoint.name}: {what}")


def _refuse_other_pooling(checkpoint: Checkpoint, architectures: list[str]) -> None:
    """Raise ModelError for a bidirectional Llama that is not a reranker with one label, averaged over its tokens."""
    config, where = checkpoint.config, f"{checkpoint.name}: a bidirectional Llama"
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise ModelError(f"{where} without a head ({', '.join(architectures)}). A bi-encoder gives no score for a pair")
    if config["is_causal"] is not False:
        raise ModelError(f"{where} with is_causal {config['is_causal']!r} (expected false)")
    if config.get("pooling", "avg") != "avg":
        raise ModelError(f"{where} with pooling {config['pooling']!r} is not supported (expected 'avg')")
    temperature = config.get("temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not temperature > 0:
        raise ModelError(f"{where} with temperature {temperature!r} (expected a number above 0)")
    if len(labels_of(checkpoint)) != 1:
        raise ModelError(f"{where} with {len(labels_of(checkpoint))} labels is not supported (expected one)")


def _refuse_other_lists(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a listwise model that is not jina-reranker-v3: v3.5 has sliding windows and other limits."""
    config, where = checkpoint.config, f"{checkpoint.name}: {JINA_RANKING}"
    if config.get("model_type") != "qwen3":
        raise ModelError(f"{where} of type {config.get('model_type')!r} is not supported (expected 'qwen3')")
    if config.get("use_sliding_window") or "sliding_attention" in (config.get("layer_types") or []):
        raise ModelError(f"{where} with sliding windows (jina-reranker-v3.5) is not supported, only jina-reranker-v3")


def half_precision(checkpoint: Checkpoint, family: str) -> str:
    """bf16 for checkpoints stored in it, and for Gemma 2 and T5, which overflow fp16; else fp16, as bge does."""
    stored = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")
    return "bf16" if stored == "bfloat16" or family in {LIGHTWEIGHT, SEQ2SEQ} else "fp16"
