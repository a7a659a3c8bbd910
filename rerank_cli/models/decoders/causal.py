"""Causal language models scored by their answer to a prompt: bge-reranker-v2-gemma, Qwen3-Reranker, mxbai-rerank-v2.

The stock transformer without its head runs over a packed row. Only the last state of each sequence is kept, and of the
head only the rows of the answers. A decoder with a classification head is scored at the same token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rerank_cli.models.answer_head import AnswerHead, head_of_answers, head_of_model, head_of_tensor
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.inputs import Frame, ModelInputs, Placement, model_inputs, padded
from rerank_cli.models.last_layer import trim_last_layer
from rerank_cli.models.loading import load_stock, merge_adapter, packed_or_padded, stock_config
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.reading.answers import Answers
from rerank_cli.models.reading.labels import Label
from rerank_cli.models.tensors import TensorFiles

PACKED_AND_TESTED = {"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "granite"}


def load_decoder(
    checkpoint: Checkpoint,
    placement: Placement,
    answers: Answers | None,
    divide_by: float,
    label: Label | None = None,
) -> PackedDecoder | PaddedDecoder:
    """The backbone with the rows of its head for `answers`, or with the classification head if there are no answers.

    With an adapter, the whole causal model is loaded first and merged with it. A type outside the tested ones gets
    packed rows only if a probe gets the same scores both ways, and never with an adapter.
    """
    config = stock_config(checkpoint)
    tested = config.model_type in PACKED_AND_TESTED

    def parts(attention: str | None) -> tuple[PreTrainedModel, torch.device, AnswerHead]:
        if checkpoint.adapter is not None:
            stock = AutoModelForCausalLM if answers else AutoModelForSequenceClassification
            model: Any = merge_adapter(load_stock(stock, checkpoint, placement, attention), checkpoint)
            if answers:
                return model.base_model, placement.device, head_of_model(model, answers, divide_by)
            head = AnswerHead(model.score.weight.float(), label=label)
            return model.base_model, placement.device, head
        if answers:
            head = head_of_answers(checkpoint, config, answers, divide_by, placement.device)
        else:
            head = head_of_tensor(TensorFiles(checkpoint), "score.weight", placement.device, label=label)
        return load_stock(AutoModel, checkpoint, placement, attention), placement.device, head

    return packed_or_padded(
        placement.attention is not None and (tested or checkpoint.adapter is None),
        lambda: PackedDecoder(*parts(placement.attention)),
        lambda: PaddedDecoder(*parts(None)),
        tested=tested,
        shared=True,
    )


class _Decoder:
    """A backbone, and the head applied to the last state of each sequence."""

    packed: bool
    layers: tuple[int, ...] = ()

    def __init__(self, backbone: PreTrainedModel, device: torch.device, head: Callable[[Tensor], Tensor]) -> None:
        """`head` maps states [n, H] to fp32 scores [n]."""
        self.parameters = backbone.num_parameters()
        self.max_positions = positions_of(backbone.config)
        self.backbone = backbone
        self._device = device
        self._head = head
        self._trimmed = self.packed and trim_last_layer(backbone)
        if self.packed:  # some stock classes look for padding on the device, and wait for it, to warn of it
            cast("Any", backbone).warn_if_padding_and_no_attention_mask = _no_warning


def _no_warning(*_: Any) -> None:
    """A packed row has no padding."""


class PackedDecoder(_Decoder):
    """Feeds packed rows with shared prefixes."""

    packed = True
    causal = True

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        return self.logits(row)

    def logits(self, row: TokenRow) -> Tensor:
        return self.compute(self.model_inputs(row))

    def model_inputs(self, row: TokenRow, frame: Frame | None = None) -> ModelInputs:
        return model_inputs(row, self._device, causal=True, frame=frame)

    def compute(self, inputs: ModelInputs) -> Tensor:
        """fp32 [n], from tensors on the device only."""
        found = self.backbone(
            input_ids=inputs.ids, position_ids=inputs.positions, packing=inputs.packing, use_cache=False
        ).last_hidden_state[0]
        return self._head(found if self._trimmed else found[inputs.packing.score_at])

    def computed(self, row: TokenRow) -> int:
        return row.tokens


class PaddedDecoder(_Decoder):
    """Feeds right-padded batches: for types whose attention cannot be replaced, and as a reference."""

    packed = False

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        return self.logits(row)

    def logits(self, row: TokenRow) -> Tensor:
        batch = padded(row.unshared(), self._device, pad=0)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        states = self.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return self._head(states[torch.arange(len(states), device=self._device), mask.sum(dim=1) - 1])

    def computed(self, row: TokenRow) -> int:
        return int(row.sequence_lengths.max()) * row.sequences


def positions_of(config: Any) -> int:
    """The maximum number of tokens of a sequence; rotary models without a stated limit take any number."""
    return int(getattr(config, "max_position_embeddings", None) or 1 << 20)
