"""Scores per pair, pooled from the logits of rows and passages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import Prepared

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores of n pairs in their order.

    `logits` are [n], or [n, layers] with the deepest layer last; NaN if the model gave no finite score. `tokens` and
    `truncated` are [n]. `passages` are the characters (start, end) of each document's best passage, [n, 2], or None
    unless long documents are split. `duplicates` counts pairs that were not scored because they equal another one.
    `kept` [n] marks the pairs that stay in the answer (None: all do); the others have no score.
    """

    logits: Logits
    tokens: Index
    truncated: npt.NDArray[np.bool_]
    passages: Index | None
    duplicates: int
    kept: npt.NDArray[np.bool_] | None = None

    def take(self, places: Index) -> PairScores:
        """The pairs at these indices; repeated ones count as duplicates."""
        passages = None if self.passages is None else self.passages[places]
        duplicates = self.duplicates + len(places) - len(self.tokens)
        kept = None if self.kept is None else self.kept[places]
        return PairScores(self.logits[places], self.tokens[places], self.truncated[places], passages, duplicates, kept)


def deepest(logits: Logits) -> Logits:
    """The logits of the deepest layer, [n], which determine the order."""
    return logits if logits.ndim == 1 else logits[:, -1]


def by_pair(prepared: Prepared, logits: Logits) -> PairScores:
    """Pool the logits of k passages, [k] or [k, layers], to one per document."""
    pooled, best = prepared.windows.pool(logits)
    spans = None if prepared.spans is None else prepared.spans[best]
    duplicates = len(prepared.distinct) - prepared.distinct_pairs
    return PairScores(pooled, prepared.tokens, prepared.truncated, spans, duplicates)


def concatenate(parts: list[PairScores]) -> PairScores:
    if len(parts) == 1:
        return parts[0]
    spans = [part.passages for part in parts if part.passages is not None]
    kept = [part.kept for part in parts if part.kept is not None]
    return PairScores(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.truncated for part in parts]),
        np.concatenate(spans) if spans else None,
        sum(part.duplicates for part in parts),
        np.concatenate(kept) if kept else None,
    )
