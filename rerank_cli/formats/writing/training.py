"""Training data out: the record as it was, with the teacher's logits as `pos_scores` and `neg_scores`.

Always logits, whatever kind of score a run writes elsewhere: distillation takes them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rerank_cli.choices import TrainFormat
from rerank_cli.formats.contract import ArrowSchema
from rerank_cli.formats.shapes.fields import TRAIN_LISTS, TRAIN_SCORES
from rerank_cli.records import Ranking


def train_answer(ranking: Ranking) -> dict[str, Any]:
    """The record with its scores. They are numpy float32, in the order of the documents."""
    return {**(ranking.request.given or {}), **_scores(ranking)}


def _scores(ranking: Ranking) -> dict[str, Any]:
    positives = len((ranking.request.given or {})[TRAIN_LISTS[0]])
    logits = list(np.asarray(ranking.logits, dtype=np.float32))
    return dict(zip(TRAIN_SCORES, (logits[:positives], logits[positives:]), strict=True))


def train_row(ranking: Ranking) -> dict[str, Any]:
    """The same as columns for what came as JSON lines: texts alone, and all other fields under `extra`."""
    request = ranking.request
    texts = [candidate.text for candidate in request.candidates]
    positives = len((request.given or {})[TRAIN_LISTS[0]])
    row: dict[str, Any] = {"id": request.id, "query": request.query, "pos": texts[:positives], "neg": texts[positives:]}
    return row | _scores(ranking) | {"prompt": request.instruction}


def train_schema(columns: list[ArrowSchema] | None) -> ArrowSchema:
    """A Parquet input's columns, or those of `train_row`, with columns for the scores."""
    import pyarrow as pa

    if columns is None:
        texts = [("id", pa.string()), ("query", pa.string()), *((name, pa.list_(pa.string())) for name in TRAIN_LISTS)]
        columns = [pa.field(name, kind) for name, kind in (*texts, ("prompt", pa.string()))]
    kept = [field for field in columns if field.name not in TRAIN_SCORES]
    return pa.schema([*kept, *(pa.field(name, pa.list_(pa.float32())) for name in TRAIN_SCORES)])


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
