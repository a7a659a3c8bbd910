"""A handful of documents scored at once, without files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rerank_cli.engine.contract import Session
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.errors import BadRecord, ModelError


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A document with its place in what was given, its logit, and its score, the sigmoid of it."""

    index: int
    text: str
    logit: float
    score: float


def score_documents(session: Session, query: str, documents: Sequence[str]) -> list[ScoredText]:
    """Best first, ties in the order given. Figures are float32, as short as reads back exactly."""
    if not query.strip():
        raise BadRecord("empty_query", "the query is empty")
    count = len(documents)
    prepared = session.prepare(PairTexts([query] * count, documents, [0] * count))
    logits, _ = prepared.windows.pool(session.score(prepared))
    if logits.ndim > 1:
        logits = logits[:, -1]
    if not np.isfinite(logits).all():
        raise ModelError("the model gave a score that is not a finite number. Fix: --dtype fp32")
    order = np.argsort(-logits, kind="stable").tolist()
    return [ScoredText(i, documents[i], _short(logits[i]), _short(_sigmoid(float(logits[i])))) for i in order]


def _sigmoid(logit: float) -> float:
    """1 / (1 + e^-x), without overflow on either side."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _short(value: float | np.float32) -> float:
    return float(str(np.float32(value)))
