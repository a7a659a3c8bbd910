"""Encoder-decoders scored by the first token that they answer: monoT5 and its multilingual kin.

The stock T5 or mT5 without its head reads a padded batch and takes one step of its decoder. Of the head only the rows
of the two answers are computed, in fp32: the score is the difference of their logits, so that log-softmax over the two
is the logarithm of its sigmoid.
Source: `MonoT5` of pygaggle, `rerank/transformer.py` and `model/decode.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from rerank_cli.errors import ModelError
from rerank_cli.models.answer_head import AnswerHead
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.causal import positions_of
from rerank_cli.models.inputs import Placement, padded
from rerank_cli.models.loading import load_stock
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.reading.answers import Answers
from rerank_cli.models.tensors import TensorFiles

_TIED = ("shared.weight", "decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "lm_head.weight")


def load_seq2seq(checkpoint: Checkpoint, placement: Placement, answers: Answers, divide_by: float) -> EncoderDecoder:
    """The backbone with the rows of its head for `answers`. Raises ModelError if it cannot be loaded."""
    head = _head(checkpoint, answers, divide_by, placement.device)
    start = checkpoint.config.get("decoder_start_token_id", checkpoint.config.get("pad_token_id", 0))
    if not isinstance(start, int) or isinstance(start, bool):
        raise ModelError(f"{checkpoint.name}: config.json: decoder_start_token_id cannot be {start!r}")
    backbone = load_stock(AutoModel, checkpoint, placement, None)
    return EncoderDecoder(backbone, placement.device, head, start)


def _head(checkpoint: Checkpoint, answers: Answers, divide_by: float, device: torch.device) -> AnswerHead:
    """Rows of the embeddings, whose products are scaled, in the first T5; of a matrix of its own in T5 1.1 and mT5."""
    config, files = checkpoint.config, TensorFiles(checkpoint)
    tied = config.get("model_type") == "t5" and config.get("tie_word_embeddings", True) is not False
    name = next((name for name in (_TIED if tied else ("lm_head.weight",)) if name in files), None)
    if name is None:
        raise ModelError(f"{checkpoint.name}: weights lack the head ({_TIED[0] if tied else 'lm_head.weight'})")
    rows = files.read(name, list(answers.ids)).float().to(device)
    scale = float(config.get("d_model", rows.shape[1])) ** -0.5 if tied else 1.0
    return AnswerHead(rows, scale=scale, divide_by=divide_by, yes=len(answers.yes))


class EncoderDecoder:
    """Feeds right-padded batches to the encoder and one start token to the decoder.

    Positions are relative, so that a sequence of any length is read.
    """

    packed = False
    layers: tuple[int, ...] = ()

    def __init__(self, backbone: PreTrainedModel, device: torch.device, head: AnswerHead, start: int) -> None:
        self.parameters = backbone.num_parameters()
        self.max_positions = positions_of(backbone.config)
        self.backbone = backbone
        self._device = device
        self._head = head
        self._start = start

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        batch = padded(row.unshared(), self._device, self.backbone.config.pad_token_id or 0)
        ids = batch["input_ids"]
        found: Any = self.backbone(
            input_ids=ids,
            attention_mask=batch["attention_mask"],
            decoder_input_ids=torch.full((len(ids), 1), self._start, device=self._device),
            use_cache=False,
        )
        return self._head(found.last_hidden_state[:, 0])

    def computed(self, row: TokenRow) -> int:
        return (int(row.sequence_lengths.max()) + 1) * row.sequences
