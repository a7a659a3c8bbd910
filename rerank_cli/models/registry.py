"""Determines from its configuration files how a checkpoint is scored, and lists published checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint

ENCODER = "encoder"
MODULAR = "encoder-modules"
DECODER = "decoder"
CLASSIFIER = "decoder-classifier"
LAYERWISE = "layerwise"
LIGHTWEIGHT = "lightweight"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published checkpoint, as `rerank models` lists it."""

    name: str
    family: str
    parameters: str
    max_length: int
    licence: str
    note: str


KNOWN: tuple[KnownModel, ...] = (
    KnownModel("mini", ENCODER, "10 M", 512, "CC-BY-SA-4.0", "built in, English, for a first look and for tests"),
    KnownModel("BAAI/bge-reranker-v2-m3", ENCODER, "568 M", 8192, "Apache-2.0", "the default; 100+ languages"),
    KnownModel("BAAI/bge-reranker-large", ENCODER, "560 M", 512, "MIT", "English and Chinese"),
    KnownModel("BAAI/bge-reranker-base", ENCODER, "278 M", 512, "MIT", "English and Chinese"),
    KnownModel("BAAI/bge-reranker-v2-gemma", DECODER, "2.51 B", 8192, "Apache-2.0", "many languages"),
    KnownModel("BAAI/bge-reranker-v2-minicpm-layerwise", LAYERWISE, "2.72 B", 2048, "Apache-2.0", "--cutoff-layers 28"),
    KnownModel(
        "BAAI/bge-reranker-v2.5-gemma2-lightweight",
        LIGHTWEIGHT,
        "9.24 B",
        8192,
        "Gemma",
        "--cutoff-layers 28 --compress-layers 24,40 --compress-ratio 2",
    ),
    KnownModel("Qwen/Qwen3-Reranker-0.6B", DECODER, "596 M", 32768, "Apache-2.0", "100+ languages, instructions"),
    KnownModel("Qwen/Qwen3-Reranker-4B", DECODER, "4.0 B", 32768, "Apache-2.0", "100+ languages, instructions"),
    KnownModel("Qwen/Qwen3-Reranker-8B", DECODER, "8.2 B", 32768, "Apache-2.0", "100+ languages, instructions"),
    KnownModel(
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls", CLASSIFIER, "596 M", 32768, "Apache-2.0", "the same, one label"
    ),
    KnownModel("mixedbread-ai/mxbai-rerank-base-v2", DECODER, "494 M", 32768, "Apache-2.0", "100+ languages"),
    KnownModel("mixedbread-ai/mxbai-rerank-large-v2", DECODER, "1.54 B", 32768, "Apache-2.0", "100+ languages"),
    KnownModel("cross-encoder/ms-marco-MiniLM-L6-v2", ENCODER, "23 M", 512, "Apache-2.0", "English, fast"),
    KnownModel("cross-encoder/ms-marco-MiniLM-L12-v2", ENCODER, "33 M", 512, "Apache-2.0", "English"),
    KnownModel("cross-encoder/ms-marco-electra-base", ENCODER, "109 M", 512, "Apache-2.0", "English"),
    KnownModel("Alibaba-NLP/gte-reranker-modernbert-base", ENCODER, "150 M", 8192, "Apache-2.0", "English, long"),
    KnownModel("mixedbread-ai/mxbai-rerank-base-v1", ENCODER, "184 M", 512, "Apache-2.0", "English; padded (DeBERTa)"),
    KnownModel("cross-encoder/ettin-reranker-32m-v1", MODULAR, "32 M", 7999, "Apache-2.0", "English, long, fast"),
    KnownModel("cross-encoder/ettin-reranker-150m-v1", MODULAR, "150 M", 7999, "Apache-2.0", "English, long"),
    KnownModel("maidalun1020/bce-reranker-base_v1", ENCODER, "278 M", 512, "Apache-2.0", "four languages"),
)


def identify(checkpoint: Checkpoint) -> str:
    """The family that scores this checkpoint. Raises ModelError, one line with the reason, if none can."""
    from transformers.models.auto import modeling_auto as known

    config, where = checkpoint.config, checkpoint.name
    architectures = [str(name) for name in config.get("architectures") or []]
    named = ", ".join(architectures) or "none"
    model_type = str(config.get("model_type", ""))
    if "LayerWiseMiniCPMForCausalLM" in architectures or (model_type == "minicpm" and "start_layer" in config):
        return LAYERWISE
    if "CostWiseGemmaForCausalLM" in architectures or model_type == "cost_wise_gemma":
        return LIGHTWEIGHT
    language_model = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    # Encoders such as BERT are listed as causal language models too, but as masked ones as well.
    causal = language_model is not None and model_type not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        if model_type not in known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            if "auto_map" in config:
                raise ModelError(
                    f"{where}: model type {model_type!r} needs code from the checkpoint, which is never run"
                )
            raise ModelError(f"{where}: model type {model_type!r} is not one that transformers can load")
        labels = config.get("num_labels", len(config.get("id2label") or {}) or 2)
        if labels != 1:
            raise ModelError(f"{where}: a classifier with {labels} labels, expected a reranker with one")
        return CLASSIFIER if causal else ENCODER
    if causal and any(name == language_model or name.endswith("ForCausalLM") for name in architectures):
        return DECODER
    kinds = [module.kind for module in checkpoint.modules]
    one_output = kinds[-1:] == ["Dense"] and checkpoint.modules[-1].config.get("out_features") == 1
    if one_output and kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Dense", "LayerNorm"}:
        return MODULAR
    if "auto_map" in config:
        raise ModelError(f"{where}: needs code from the checkpoint ({named}), which is never run")
    raise ModelError(
        f"{where}: not a reranker (architectures: {named}, expected …ForSequenceClassification with one label, or "
        "…ForCausalLM of a stock type). A bi-encoder gives no score for a pair"
    )


def half_precision(checkpoint: Checkpoint, family: str) -> str:
    """bf16 for checkpoints stored in it and for Gemma 2, which overflows fp16; else fp16, as the bge authors use."""
    stored = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")
    return "bf16" if stored == "bfloat16" or family == LIGHTWEIGHT else "fp16"
