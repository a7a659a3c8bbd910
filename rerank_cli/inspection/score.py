"""Scores a few documents without files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rerank_cli.choices import ScoreKind
from rerank_cli.engine.contract import Session
from rerank_cli.engine.results import deepest
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.errors import BadRecord, ModelError
from rerank_cli.ranking import sigmoid


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A document with its index in the input, its logit, and its score: the sigmoid, or what the checkpoint states."""

    index: int
    text: str
    logit: float
    score: float


def score_documents(session: Session, query: str, documents: Sequence[str]) -> list[ScoredText]:
    """Best first, ties in input order; shortest float32 decimals. BadRecord for an empty query, ModelError for NaN."""
    if not query.strip():
        raise BadRecord("empty_query", "the query is empty")
    count = len(documents)
    prepared = session.prepare(PairTexts([query] * count, documents, [0] * count, lists=[0] * count))
    logits = deepest(prepared.windows.pool(session.score(prepared))[0])
    if not np.isfinite(logits).all():
        raise ModelError("the model gave a score that is not a finite number. Fix: --dtype fp32")
    scores = logits if session.facts.scores == ScoreKind.RAW else sigmoid(logits)
    order = np.argsort(-logits, kind="stable").tolist()
    return [ScoredText(i, documents[i], float(str(logits[i])), float(str(scores[i]))) for i in order]
