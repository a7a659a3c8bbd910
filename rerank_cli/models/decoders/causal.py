"""Causal language models whose answer to a prompt is the score: bge-reranker-v2-gemma, Qwen3-Reranker, mxbai-rerank-v2.

The bare stock transformer runs over a packed row; of its states only each sequence's last one is kept, and of the
vocabulary only the answers' rows. A decoder with a classification head of one label is read in the same place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from rerank_cli.models.answer_head import AnswerHead, head_of_answers, head_of_label, head_of_model
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.inputs import Frame, ModelInputs, Placement, model_inputs, padded
from rerank_cli.models.last_layer import trim_last_layer
from rerank_cli.models.loading import load_stock, merge_adapter, stock_config
from rerank_cli.models.packed_row import TokenRow

_PACKED_AND_TESTED = {"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "granite"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What is read of a causal model: token ids of the answer and of its opposite, none for a classification head."""

    ids: tuple[int, ...]
    divide_by: float = 1.0


def load_decoder(checkpoint: Checkpoint, placement: Placement, answers: Answers) -> PackedDecoder | PaddedDecoder:
    """The backbone without its head, and the rows of the head that matter.

    A type that is not among the tested ones gets packed rows only if probe sequences score the same both ways.
    """
    config = stock_config(checkpoint)
    if checkpoint.adapter is not None:
        return _load_adapted(checkpoint, placement, answers)
    if answers.ids:
        head = head_of_answers(checkpoint, config, answers.ids, answers.divide_by, placement.device)
    else:
        head = head_of_label(checkpoint, placement.device)
    if placement.attention is None:
        return PaddedDecoder(load_stock(AutoModel, checkpoint, placement, None), placement.device, head)
    packed = PackedDecoder(load_stock(AutoModel, checkpoint, placement, placement.attention), placement.device, head)
    if config.model_type in _PACKED_AND_TESTED:
        return packed
    plain = PaddedDecoder(load_stock(AutoModel, checkpoint, placement, None), placement.device, head)
    return packed if _agree(packed, plain) else plain


def _load_adapted(checkpoint: Checkpoint, placement: Placement, answers: Answers) -> PackedDecoder | PaddedDecoder:
    """The whole causal model with the adapter merged into it, of which backbone and answers' rows are kept.

    Types that are not among the tested ones are padded.
    """
    attention = placement.attention if checkpoint.config.get("model_type") in _PACKED_AND_TESTED else None
    model = merge_adapter(load_stock(AutoModelForCausalLM, checkpoint, placement, attention), checkpoint)
    kind = PackedDecoder if attention else PaddedDecoder
    return kind(model.base_model, placement.device, head_of_model(model, answers.ids, answers.divide_by))


class _Decoder:
    """A backbone and what is read of its last states."""

    layers: tuple[int, ...] = ()

    def __init__(self, backbone: PreTrainedModel, device: torch.device, head: AnswerHead) -> None:
        self.parameters = backbone.num_parameters()
        self.max_positions = positions_of(backbone.config)
        self._backbone = backbone
        self._device = device
        self._head = head

    @property
    def backbone(self) -> nn.Module:
        return cast("nn.Module", self._backbone)


class PackedDecoder(_Decoder):
    """Feeds one row of concatenated sequences, beginnings shared; the head sees last states alone."""

    packed = True
    causal = True

    def __init__(self, backbone: PreTrainedModel, device: torch.device, head: AnswerHead) -> None:
        super().__init__(backbone, device, head)
        self._trimmed = trim_last_layer(backbone)

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        """fp32 [n]."""
        return self.compute(self.model_inputs(row))

    def model_inputs(self, row: TokenRow, frame: Frame | None = None) -> ModelInputs:
        return model_inputs(row, self._device, causal=True, frame=frame)

    def compute(self, inputs: ModelInputs) -> Tensor:
        """fp32 [n], by what is on the device alone."""
        found = self._backbone(
            input_ids=inputs.ids, position_ids=inputs.positions, packing=inputs.packing, use_cache=False
        ).last_hidden_state[0]
        return self._head(found if self._trimmed else found[inputs.packing.score_at])

    def computed(self, row: TokenRow) -> int:
        return row.tokens


class PaddedDecoder(_Decoder):
    """Feeds a right-padded batch to the stock backbone: where attention cannot be exchanged, and to compare."""

    packed = False

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        """fp32 [n]."""
        batch = padded(row.unshared(), self._device, pad=0)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        states = self._backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return self._head(states[torch.arange(len(states), device=self._device), mask.sum(dim=1) - 1])

    def computed(self, row: TokenRow) -> int:
        return int(row.sequence_lengths.max()) * row.sequences


def positions_of(config: Any) -> int:
    """The most tokens a sequence may have; rotary models without a stated limit take any number."""
    return int(getattr(config, "max_position_embeddings", None) or 1 << 20)


def _agree(packed: PackedDecoder, plain: PaddedDecoder) -> bool:
    """Whether a shared beginning and two continuations score as two whole sequences do."""
    ids = (np.arange(16) % 40 + 5).astype(np.int32)
    row = TokenRow(ids, np.zeros_like(ids), np.array([6, 5, 5]), np.array([-1, 0, 0]))
    try:
        left, right = packed.score(row).cpu(), plain.score(row).cpu()
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError):  # a forward that cannot take a packed row
        return False
    return bool(torch.isfinite(left).all()) and torch.allclose(left, right, atol=1e-2, rtol=1e-2)
