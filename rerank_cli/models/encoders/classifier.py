"""Sequence-classification cross-encoders: BERT, XLM-R, ELECTRA, ModernBERT, GTE, DeBERTa and others.

Stock transformers classes, of BERT-like types only where `bert.load` leaves a checkpoint to them. They get packed
rows if their attention can be replaced, else padded batches. The score is the head's logit, or that of one of its
labels, computed in fp32. No code from a checkpoint is run.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.encoders.scoring import PackedEncoder, PaddedEncoder
from rerank_cli.models.inputs import Placement
from rerank_cli.models.loading import load_stock, merge_adapter, packed_or_padded, stock_config
from rerank_cli.models.reading.labels import Label, score_of

PACKED_AND_TESTED = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert", "gte"}


def load_encoder(
    checkpoint: Checkpoint, placement: Placement, label: Label | None = None
) -> PackedEncoder | PaddedEncoder:
    """Load the weights in the target dtype, for packed rows if possible. `label`: see `labels.choose_label`.

    A type outside the tested ones gets packed rows only if a probe gets the same scores both ways.
    """
    config, stock = stock_config(checkpoint), AutoModelForSequenceClassification

    def loaded(attention: str | None) -> PreTrainedModel:
        model = load_stock(stock, checkpoint, placement, attention)
        return model if checkpoint.adapter is None else merge_adapter(model, checkpoint)

    return packed_or_padded(
        placement.attention is not None and takes_packed_rows(stock, config),
        lambda: packed_encoder(loaded(placement.attention), placement.device, label),
        lambda: padded_encoder(loaded(None), placement.device, label),
        tested=config.model_type in PACKED_AND_TESTED,
    )


def packed_encoder(
    model: PreTrainedModel,
    device: torch.device,
    label: Label | None = None,
    around: Callable[[nn.Module], nn.Module] = lambda head: head,
) -> PackedEncoder:
    """Takes a classification model apart: its pooler is moved into the head, its last layer is trimmed.

    `around` is applied to the head.
    """
    mode = "mean" if getattr(model.config, "classifier_pooling", "cls") == "mean" else "cls"
    return PackedEncoder(cast("PreTrainedModel", model.base_model), around(_Head(model, label)), device, (mode,))


def padded_encoder(model: PreTrainedModel, device: torch.device, label: Label | None = None) -> PaddedEncoder:
    labels = model.config.num_labels
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == labels]
    if heads:  # the logit is computed in fp32 whatever the dtype of the other layers
        heads[-1].float().register_forward_pre_hook(lambda _, args: (args[0].float(),))
    return PaddedEncoder(model, cast("PreTrainedModel", model.base_model), device, label)


def takes_packed_rows(stock: Any, config: Any) -> bool:
    """Whether the stock class takes positions and lets its attention function be replaced."""
    model_class = stock._model_mapping.get(type(config), None)
    takes_positions = model_class is not None and "position_ids" in inspect.signature(model_class.forward).parameters
    return takes_positions and bool(getattr(model_class, "_supports_attention_backend", False))


class _Pooled(nn.Module):
    """Replaces the backbone: returns states that are already computed, through the backbone's pooler."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


class _Head(nn.Module):
    """The head of a classification model in fp32: states [n, H] to scores [n].

    It is the model's own forward around `_Pooled`, so that the head of any class runs as its own code. The pooler is
    moved here from the model's backbone, which would run it on the whole row without need.
    """

    def __init__(self, model: PreTrainedModel, label: Label | None) -> None:
        super().__init__()
        self.label = label
        backbone = cast("Any", model.base_model)
        pooler = getattr(backbone, "pooler", None)
        if pooler is not None:
            backbone.pooler = None
        modules = {name: module for name, module in model._modules.items() if module is not backbone}
        self.model = copy.copy(model)
        self.model._modules = {**modules, model.base_model_prefix: _Pooled(pooler)}
        for module in self.model._modules.values():
            if module is not None:
                module.float()

    def forward(self, states: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs_embeds=states[:, None, :]).logits
        return score_of(logits, self.label)
