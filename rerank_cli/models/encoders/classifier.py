"""Sequence-classification cross-encoders: BERT, XLM-R, ELECTRA, ModernBERT, GTE, DeBERTa and others.

Stock transformers classes. They get packed rows if their attention can be replaced, else padded batches. The score is
the head's logit, or that of one of its labels, computed in fp32. No code from a checkpoint is run.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.encoders.pooling import pooled
from rerank_cli.models.inputs import Frame, ModelInputs, Packing, Placement, model_inputs, padded
from rerank_cli.models.last_layer import trim_last_layer
from rerank_cli.models.loading import load_stock, merge_adapter, packed_or_padded, stock_config
from rerank_cli.models.packed_row import TokenRow
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


class PackedEncoder:
    """Feeds packed rows to the backbone; the head gets only the states that scores are read from."""

    packed = True
    causal = False
    layers: tuple[int, ...] = ()

    def __init__(
        self, backbone: PreTrainedModel, head: nn.Module, device: torch.device, modes: Sequence[str], skip: int = 0
    ) -> None:
        """`head` maps fp32 vectors [n, H · modes] to logits [n]. For `modes` and `skip` see `pooling.pooled`."""
        self.parameters = backbone.num_parameters() + sum(weight.numel() for weight in head.parameters())
        self.backbone = backbone
        self._device = device
        self._modes, self._skip = tuple(modes), skip
        self._head = head
        self._position_start = _position_start(backbone)
        self._types = _has_segments(backbone)
        self._reads_first = self._modes == ("cls",) and not skip
        self._trimmed = self._reads_first and trim_last_layer(backbone)
        self.max_positions = backbone.config.max_position_embeddings - self._position_start

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        return self.logits(row)

    def logits(self, row: TokenRow) -> Tensor:
        return self.compute(self.model_inputs(row))

    def model_inputs(self, row: TokenRow, frame: Frame | None = None) -> ModelInputs:
        return model_inputs(row, self._device, causal=False, first_position=self._position_start, frame=frame)

    def compute(self, inputs: ModelInputs) -> Tensor:
        """fp32 [n], from tensors on the device only."""
        types = {"token_type_ids": inputs.types} if self._types else {}
        found = self.backbone(input_ids=inputs.ids, position_ids=inputs.positions, **types, packing=inputs.packing)
        return cast("Tensor", self._head(self._pool(found.last_hidden_state[0], inputs.packing)))

    def computed(self, row: TokenRow) -> int:
        return row.tokens

    def _pool(self, states: Tensor, packing: Packing) -> Tensor:
        """States [T, H], or [n, H] from a trimmed last layer, to fp32 [n, H · modes]."""
        if self._trimmed:
            return states.float()
        if self._reads_first:
            return states[packing.score_at].float()
        return pooled(states, packing.offsets.diff().long(), self._modes, self._skip)


class PaddedEncoder:
    """Feeds right-padded batches to the whole stock model: for types whose attention cannot be replaced."""

    packed = False
    layers: tuple[int, ...] = ()

    def __init__(
        self, whole: nn.Module, backbone: PreTrainedModel, device: torch.device, label: Label | None = None
    ) -> None:
        """`whole` maps `input_ids`, `attention_mask` (and `token_type_ids`) to logits, or to an output with them."""
        self.parameters = sum(weight.numel() for weight in whole.parameters())
        self.backbone = whole
        self._device = device
        self._label = label
        self._types = _has_segments(backbone)
        self._pad = backbone.config.pad_token_id or 0
        self.max_positions = backbone.config.max_position_embeddings - _position_start(backbone)

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        return self.logits(row)

    def logits(self, row: TokenRow) -> Tensor:
        inputs = padded(row, self._device, self._pad)
        if not self._types:
            del inputs["token_type_ids"]
        found: Any = self.backbone(**inputs)
        logits: Tensor = found if isinstance(found, Tensor) else found.logits
        return score_of(logits.float(), self._label)

    def computed(self, row: TokenRow) -> int:
        return int(row.lengths.max()) * row.sequences


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


def _position_start(backbone: nn.Module) -> int:
    """RoBERTa-like position tables start after their padding index, all others at zero."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _has_segments(backbone: PreTrainedModel) -> bool:
    """Whether the model uses segment ids."""
    takes = "token_type_ids" in inspect.signature(backbone.forward).parameters
    return takes and (getattr(backbone.config, "type_vocab_size", 0) or 0) > 1
