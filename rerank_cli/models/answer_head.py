"""The head of a decoder: a few rows of its output matrix, or all of a classifier's, applied in fp32 to last states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.reading.answers import Answers
from rerank_cli.models.reading.labels import Label, score_of
from rerank_cli.models.tensors import TensorFiles

_HEAD = "lm_head.weight"
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight")


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Rows of a head, fp32 [r, H], and the score computed from their r products.

    `bias` [r] is added to the products, which are then multiplied by `scale` and, with a `cap`, replaced by
    cap · tanh(x / cap). The score is log Σ exp of the first `yes` products, minus that of the others if there are any,
    divided by `divide_by`; with a `label` it is that of the label, see `labels.score_of`.
    """

    rows: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None
    divide_by: float = 1.0
    label: Label | None = None
    yes: int = 1

    def __call__(self, states: Tensor) -> Tensor:
        """States [n, H] to fp32 scores [n]."""
        products = states.float() @ self.rows.T
        if self.bias is not None:
            products = products + self.bias
        products = products * self.scale
        if self.cap is not None:
            products = torch.tanh(products / self.cap) * self.cap
        if self.label is not None:
            return score_of(products, self.label)
        score = _together(products[:, : self.yes])
        if products.shape[1] > self.yes:
            score = score - _together(products[:, self.yes :])
        return score / self.divide_by


def _together(products: Tensor) -> Tensor:
    """The logit of any of several answers, [n] of [n, answers]."""
    return products[:, 0] if products.shape[1] == 1 else products.logsumexp(dim=1)


def head_of_answers(
    checkpoint: Checkpoint, config: Any, answers: Answers, divide_by: float, device: torch.device
) -> AnswerHead:
    """The head of a causal language model that gives the logits of these tokens only.

    Source: FlagEmbedding's decoder rerankers take `logits[:, -1, yes]`; the product with that one row is the same.
    """
    files = TensorFiles(checkpoint)
    names = [name for name in (_HEAD, *_EMBEDDINGS) if name in files]
    if not names:
        raise ModelError(f"{checkpoint.name}: weights lack the head ({_HEAD}) and the embeddings it could be tied to")
    ids = list(answers.ids)
    bias = files.read("lm_head.bias", ids) if "lm_head.bias" in files else None
    return _head(config, files.read(names[0], ids).to(device), bias, divide_by, answers)


def head_of_model(model: PreTrainedModel, answers: Answers, divide_by: float) -> AnswerHead:
    """The same for a causal language model that is loaded with its head."""
    head: Any = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    rows = list(answers.ids)
    return _head(model.config, head.weight[rows], None if bias is None else bias[rows], divide_by, answers)


def _head(config: Any, rows: Tensor, bias: Tensor | None, divide_by: float, answers: Answers) -> AnswerHead:
    """Granite divides its logits and Cohere multiplies them; most models do neither."""
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    bias = None if bias is None else bias.float().to(rows.device)
    cap = getattr(config, "final_logit_softcapping", None)
    return AnswerHead(rows.float(), bias, scale, cap, divide_by, yes=len(answers.yes))


def head_of_tensor(
    files: TensorFiles, name: str, device: torch.device, cap: float | None = None, label: Label | None = None
) -> AnswerHead:
    """A classification head, [labels, H], or the head of one layer, [1, H]: the stored tensor `name`."""
    return AnswerHead(files.read(name).float().to(device), cap=cap, label=label)
