"""Training data: the given record with the teacher's logits as `pos_scores` and `neg_scores`, and mined examples.

Always logits, whatever score kind the run writes elsewhere: distillation losses take logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rerank_cli.choices import TrainFormat
from rerank_cli.formats.shapes.fields import TRAIN_LISTS, TRAIN_SCORES
from rerank_cli.records import Ranking


def train_answer(ranking: Ranking) -> dict[str, Any]:
    """The record with its scores, numpy float32 in the order of the documents."""
    return {**(ranking.request.given or {}), **train_scores(ranking)}


def train_scores(ranking: Ranking) -> dict[str, Any]:
    """Logits of the positives and of the negatives."""
    positives = len((ranking.request.given or {})[TRAIN_LISTS[0]])
    logits = list(np.asarray(ranking.logits, dtype=np.float32))
    return dict(zip(TRAIN_SCORES, (logits[:positives], logits[positives:]), strict=True))


@dataclass(frozen=True, slots=True)
class Example:
    """A query with the texts of its positives and negatives; scores are None unless requested."""

    query: str
    positives: Sequence[str]
    negatives: Sequence[str]
    positive_scores: Sequence[float] | None = None
    negative_scores: Sequence[float] | None = None


def example_rows(example: Example, format: TrainFormat) -> Iterator[dict[str, Any]]:
    """One row per query (`train`), per positive and negative (`triplets`), or per positive (`n-tuples`)."""
    if format is TrainFormat.TRAIN:
        row: dict[str, Any] = {"query": example.query, "pos": example.positives, "neg": example.negatives}
        if example.positive_scores is not None:
            row |= {"pos_scores": example.positive_scores, "neg_scores": example.negative_scores}
        yield row
        return
    for positive in example.positives:
        begin = {"anchor": example.query, "positive": positive}
        if format is TrainFormat.TRIPLETS:
            yield from ({**begin, "negative": negative} for negative in example.negatives)
        else:
            yield begin | {f"negative_{n}": negative for n, negative in enumerate(example.negatives, 1)}
