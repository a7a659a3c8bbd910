"""Scores by pair: what becomes of rows and passages once the device has given its logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import Prepared

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PairScores:
    """n pairs, scored, in the order they were given.

    `logits` are [n], or [n, layers] with the deepest last; NaN where there is no finite one. `tokens` and `truncated`
    are [n]. `passages` are the characters (start, end) of the best passage of each document, [n, 2], None unless long
    documents are read in passages. `duplicates` counts pairs that needed no scoring because another one is equal.
    """

    logits: Logits
    tokens: Index
    truncated: npt.NDArray[np.bool_]
    passages: Index | None
    duplicates: int

    def take(self, places: Index) -> PairScores:
        """The pairs at these places; those that repeat are duplicates."""
        passages = None if self.passages is None else self.passages[places]
        duplicates = self.duplicates + len(places) - len(self.tokens)
        return PairScores(self.logits[places], self.tokens[places], self.truncated[places], passages, duplicates)


def by_pair(prepared: Prepared, logits: Logits) -> PairScores:
    """Logits of k passages, [k] or [k, layers], pooled to one a document, with what is known of each pair."""
    pooled, best = prepared.windows.pool(logits)
    spans = None if prepared.spans is None else prepared.spans[best]
    duplicates = len(prepared.distinct) - prepared.distinct_pairs
    return PairScores(pooled, prepared.tokens, prepared.truncated, spans, duplicates)


def concatenate(parts: list[PairScores]) -> PairScores:
    """Several runs of pairs as one."""
    if len(parts) == 1:
        return parts[0]
    spans = [part.passages for part in parts if part.passages is not None]
    return PairScores(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.truncated for part in parts]),
        np.concatenate(spans) if spans else None,
        sum(part.duplicates for part in parts),
    )
