"""Where a decoder's score is read: a few rows of its head, in fp32, against the last token's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.loading import TensorFiles

_HEAD = "lm_head.weight"
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight")


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Rows of a head, fp32 [r, H], and what is made of their r products.

    The score is the first product less the second, if there is one, divided by `divide_by`. Before that a product is
    multiplied by `scale`, has its `bias` [r] added, and is bent to cap · tanh(x / cap).
    """

    rows: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None
    divide_by: float = 1.0

    def __call__(self, states: Tensor) -> Tensor:
        """States [n, H] to fp32 scores [n]."""
        products = states.float() @ self.rows.T
        if self.bias is not None:
            products = products + self.bias
        products = products * self.scale
        if self.cap is not None:
            products = torch.tanh(products / self.cap) * self.cap
        score = products[:, 0] - products[:, 1] if products.shape[1] == 2 else products[:, 0]
        return score / self.divide_by


def head_of_answers(
    checkpoint: Checkpoint, config: Any, answers: Sequence[int], divide_by: float, device: torch.device
) -> AnswerHead:
    """Of a causal language model: the logits of these tokens, without those of all others.

    Source: FlagEmbedding's decoder rerankers take `logits[:, -1, yes]`; the product with one row is the same number.
    """
    files = TensorFiles(checkpoint)
    names = [_HEAD] if _HEAD in files else [name for name in _EMBEDDINGS if name in files]
    if not names:
        raise ModelError(f"{checkpoint.name}: weights lack the head ({_HEAD}) and the embeddings it could be tied to")
    bias = files.rows("lm_head.bias", None)[list(answers)] if "lm_head.bias" in files else None
    return AnswerHead(
        files.rows(names[0], list(answers)).float().to(device),
        None if bias is None else bias.float().to(device),
        scale=_scale(config),
        cap=getattr(config, "final_logit_softcapping", None),
        divide_by=divide_by,
    )


def head_of_model(model: PreTrainedModel, answers: Sequence[int], divide_by: float) -> AnswerHead:
    """The same of a causal language model that is loaded whole."""
    head: Any = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    return AnswerHead(
        head.weight[list(answers)].float(),
        None if bias is None else bias[list(answers)].float(),
        scale=_scale(model.config),
        cap=getattr(model.config, "final_logit_softcapping", None),
        divide_by=divide_by,
    )


def _scale(config: Any) -> float:
    """Granite divides its logits, Cohere multiplies them; most models do neither."""
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)


def head_of_label(checkpoint: Checkpoint, device: torch.device) -> AnswerHead:
    """Of a decoder with a classification head of one label: `score.weight`, [1, H]."""
    return AnswerHead(TensorFiles(checkpoint).read("score.weight").float().to(device))


def head_of_layer(files: TensorFiles, name: str, cap: float | None, device: torch.device) -> AnswerHead:
    """A layer's own scalar head, [1, H]."""
    return AnswerHead(files.read(name).float().to(device), cap=cap)
