"""Sequence-classification cross-encoders with one label: BERT, XLM-R, ELECTRA, ModernBERT, GTE, DeBERTa, ….

Stock transformers classes, fed one packed row at a time where their attention can be exchanged, a padded batch
elsewhere. The score is the head's logit, taken in fp32. No code from a checkpoint is run.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.inputs import Frame, ModelInputs, Packing, Placement, model_inputs, padded
from rerank_cli.models.last_layer import trim_last_layer
from rerank_cli.models.loading import load_stock, stock_config
from rerank_cli.models.packed_row import TokenRow

_PACKED_AND_TESTED = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert", "gte"}


def load_encoder(checkpoint: Checkpoint, placement: Placement) -> PackedEncoder | PaddedEncoder:
    """Load the weights straight in the target dtype and choose how the model is fed.

    A type that is not among the tested ones gets packed rows only if two probe sequences score the same both ways.
    """
    config = stock_config(checkpoint)
    stock = AutoModelForSequenceClassification
    packs = placement.attention is not None and feeds_packed(stock, config)
    model = load_stock(stock, checkpoint, placement, placement.attention if packs else None)
    if not packs:
        return PaddedEncoder.of(model, placement.device)
    packed = PackedEncoder.of(model, placement.device)
    if config.model_type in _PACKED_AND_TESTED:
        return packed
    plain = PaddedEncoder.of(load_stock(stock, checkpoint, placement, None), placement.device)
    return packed if agree(packed, plain) else plain


def feeds_packed(stock: Any, config: Any) -> bool:
    """Whether the stock class takes positions, and lets its attention be exchanged."""
    model_class = stock._model_mapping.get(type(config), None)
    takes_positions = model_class is not None and "position_ids" in inspect.signature(model_class.forward).parameters
    return takes_positions and bool(getattr(model_class, "_supports_attention_backend", False))


class PackedEncoder:
    """Feeds one row of concatenated sequences; the head sees only the states that the score is read from."""

    packed = True
    causal = False
    layers: tuple[int, ...] = ()

    def __init__(
        self, backbone: PreTrainedModel, head: nn.Module, device: torch.device, *, mean: bool, takes_types: bool
    ) -> None:
        self.parameters = backbone.num_parameters() + sum(weight.numel() for weight in head.parameters())
        self._device = device
        self._backbone = backbone
        self._mean = mean
        self._head = head
        self._position_start = _position_start(backbone)
        self._types = takes_types
        self._trimmed = not mean and trim_last_layer(backbone)
        self.max_positions = backbone.config.max_position_embeddings - self._position_start

    @classmethod
    def of(cls, model: PreTrainedModel, device: torch.device) -> PackedEncoder:
        """A stock classification model, taken apart."""
        mean = getattr(model.config, "classifier_pooling", "cls") == "mean"
        head, types = _fp32_head(model), has_segments(model)
        return cls(cast("PreTrainedModel", model.base_model), head, device, mean=mean, takes_types=types)

    @property
    def backbone(self) -> nn.Module:
        return cast("nn.Module", self._backbone)

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        return self.compute(self.model_inputs(row))

    def model_inputs(self, row: TokenRow, frame: Frame | None = None) -> ModelInputs:
        return model_inputs(row, self._device, causal=False, first_position=self._position_start, frame=frame)

    def compute(self, inputs: ModelInputs) -> Tensor:
        """fp32 [n], by what is on the device alone."""
        types = {"token_type_ids": inputs.types} if self._types else {}
        found = self._backbone(input_ids=inputs.ids, position_ids=inputs.positions, **types, packing=inputs.packing)
        return cast("Tensor", self._head(self._pool(found.last_hidden_state[0], inputs.packing)))

    def computed(self, row: TokenRow) -> int:
        return row.tokens

    def _pool(self, states: Tensor, packing: Packing) -> Tensor:
        """States [T, H], or [n, H] from a trimmed last layer, to fp32 [n, H]."""
        if self._trimmed:
            return states.float()
        if not self._mean:
            return states[packing.score_at].float()
        lengths = packing.offsets.diff().long()
        # "unsafe" leaves out a check of the lengths, for which the device would have to be waited for.
        return torch.segment_reduce(states.float(), "mean", lengths=lengths, axis=0, unsafe=True)


class PaddedEncoder:
    """Feeds a right-padded batch to the whole stock model: for types whose attention cannot be exchanged."""

    packed = False
    layers: tuple[int, ...] = ()

    def __init__(
        self, whole: nn.Module, backbone: PreTrainedModel, device: torch.device, *, takes_types: bool = False
    ) -> None:
        """`whole` takes `input_ids` and `attention_mask` (and `token_type_ids`) and gives logits of any shape."""
        self.parameters = sum(weight.numel() for weight in whole.parameters())
        self._whole = whole
        self._device = device
        self._types = takes_types
        self._pad = backbone.config.pad_token_id or 0
        self.max_positions = backbone.config.max_position_embeddings - _position_start(backbone)

    @classmethod
    def of(cls, model: PreTrainedModel, device: torch.device) -> PaddedEncoder:
        """A stock classification model as it is."""
        _logit_in_fp32(model)
        backbone = cast("PreTrainedModel", model.base_model)
        return cls(_Logits(model), backbone, device, takes_types=has_segments(model))

    @property
    def backbone(self) -> nn.Module:
        return self._whole

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        inputs = padded(row, self._device, self._pad)
        if not self._types:
            del inputs["token_type_ids"]
        return cast("Tensor", self._whole(**inputs).float().reshape(-1))

    def computed(self, row: TokenRow) -> int:
        return int(row.lengths.max()) * row.sequences


class _Logits(nn.Module):
    """A stock model of which the logits are wanted alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        return cast("Tensor", self.model(**inputs).logits)


class _Pooled(nn.Module):
    """Stands where the backbone stood: hands on states that were already computed, through its own pooler."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


class _Head(nn.Module):
    """The model's own forward around `_Pooled`, so that whatever head a class has is its own code.

    fp32 states [n, H] to fp32 logits [n].
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, states: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs_embeds=states[:, None, :]).logits
        return logits.reshape(-1)


def _fp32_head(model: PreTrainedModel) -> _Head:
    head = copy.copy(model)
    backbone = cast("Any", model.base_model)
    pooler = getattr(backbone, "pooler", None)
    if pooler is not None:
        backbone.pooler = None  # it would run on the whole row, for nothing
    head._modules = {name: module for name, module in model._modules.items() if module is not model.base_model}
    head._modules[model.base_model_prefix] = _Pooled(pooler)
    for module in head._modules.values():
        if module is not None:
            module.float()
    return _Head(head)


def _logit_in_fp32(model: nn.Module) -> None:
    """Let the last one-output linear layer compute in fp32 whatever the rest of the model runs in."""
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if heads:
        heads[-1].float().register_forward_pre_hook(lambda _, args: (args[0].float(),))


def _position_start(backbone: nn.Module) -> int:
    """RoBERTa-like tables begin after their padding index, all others at zero."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def has_segments(model: PreTrainedModel) -> bool:
    """Whether segment ids mean anything to this model."""
    takes = "token_type_ids" in inspect.signature(model.forward).parameters
    return takes and (getattr(model.config, "type_vocab_size", 0) or 0) > 1


def agree(packed: PackedEncoder, plain: PaddedEncoder) -> bool:
    """Whether four short sequences score the same both ways."""
    lengths = np.array([7, 7, 5, 3])
    ids = (np.arange(lengths.sum()) % 40 + 5).astype(np.int32)
    row = TokenRow(ids, np.zeros_like(ids), lengths)
    try:
        left, right = packed.score(row).cpu(), plain.score(row).cpu()
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError):  # a forward that cannot take a packed row
        return False
    return bool(torch.isfinite(left).all()) and torch.allclose(left, right, atol=1e-2, rtol=1e-2)
