"""How an encoder scores a row: packed through its backbone and head, or as a padded batch through the whole model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from rerank_cli.models.encoders.pooling import pooled
from rerank_cli.models.inputs import Frame, ModelInputs, Packing, model_inputs, padded
from rerank_cli.models.last_layer import trim_last_layer
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.reading.labels import Label, score_of


class PackedEncoder:
    """Feeds packed rows to the backbone; the head gets only the states that scores are read from."""

    packed = True
    causal = False
    layers: tuple[int, ...] = ()

    def __init__(
        self, backbone: Any, head: nn.Module, device: torch.device, modes: Sequence[str], skip: int = 0
    ) -> None:
        """`head` maps fp32 vectors [n, H · modes] to logits [n]. For `modes` and `skip` see `pooling.pooled`."""
        self.parameters = sum(weight.numel() for weight in (*backbone.parameters(), *head.parameters()))
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

    def __init__(self, whole: nn.Module, backbone: Any, device: torch.device, label: Label | None = None) -> None:
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


def _position_start(backbone: nn.Module) -> int:
    """RoBERTa-like position tables start after their padding index, all others at zero."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _has_segments(backbone: Any) -> bool:
    """Whether the model uses segment ids."""
    takes = "token_type_ids" in inspect.signature(backbone.forward).parameters
    return takes and (getattr(backbone.config, "type_vocab_size", 0) or 0) > 1
