"""The shape of a BERT-like encoder, as config.json states it. Independent of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.known import BERT_TYPES

# Settings with any other value are left to transformers.
_USUAL: Mapping[str, Any] = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
    "transformers_weights": None,  # the name of another weight file
    "configuration_files": None,
}
_LARGEST = 1 << 31  # no size is as large


@dataclass(frozen=True, slots=True)
class BertShape:
    """Names are those of config.json. `pad_token_id` is the index after which RoBERTa-like positions start."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int
    layer_norm_eps: float

    @property
    def is_roberta(self) -> bool:
        """Whether it has RoBERTa's positions and head."""
        return self.model_type != "bert"


def shape_of(checkpoint: Checkpoint) -> BertShape | None:
    """The shape of a classifier of a BERT-like type; None for all others, and if anything is missing or unusual."""
    config = checkpoint.config
    model_type = str(config.get("model_type"))
    if checkpoint.adapter is not None or checkpoint.own_type is not None or model_type not in BERT_TYPES:
        return None
    if config.get("architectures") != [f"{BERT_TYPES[model_type]}ForSequenceClassification"]:
        return None
    if any(config.get(name, usual) != usual for name, usual in _USUAL.items()):
        return None
    stated: dict[str, Any] = {field.name: config.get(field.name) for field in fields(BertShape)}
    sizes = [value for name, value in stated.items() if name not in {"model_type", "pad_token_id", "layer_norm_eps"}]
    if any(type(size) is not int or not 0 < size < _LARGEST for size in sizes):
        return None
    padding, eps = stated["pad_token_id"], stated["layer_norm_eps"]
    padded = min(stated["vocab_size"], _LARGEST if model_type == "bert" else stated["max_position_embeddings"])
    if type(padding) is not int or not 0 <= padding < padded or type(eps) is not float:
        return None
    # What transformers refuses is refused at the start, and not when `--verify` loads its classes at the end.
    dropouts = (config.get(name, 0.1) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"))
    if any(type(dropout) not in (int, float) for dropout in dropouts):
        return None
    if config.get("problem_type") == "single_label_classification":
        return None
    shape = BertShape(**stated)
    return None if shape.hidden_size % shape.num_attention_heads else shape
