"""Mined documents as rows for trainers: FlagEmbedding's objects, or the columns of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_cli.choices import TrainFormat


@dataclass(frozen=True, slots=True)
class Example:
    """A query with the texts of its positives and negatives, and their scores where they are wanted."""

    query: str
    positives: Sequence[str]
    negatives: Sequence[str]
    positive_scores: Sequence[float] | None = None
    negative_scores: Sequence[float] | None = None


def example_rows(example: Example, format: TrainFormat) -> Iterator[dict[str, Any]]:
    """One row a query (`train`), a pair of positive and negative (`triplets`), or a positive (`n-tuples`)."""
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
