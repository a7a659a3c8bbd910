"""What may be said of a result beside its score: a fused one, one a layer, truncation, the passage that was best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rerank_cli.choices import ScoreKind
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.writing.scores import fused_of
from rerank_cli.ranking import sigmoid
from rerank_cli.records import Ranking

Object = dict[str, Any]


def names_of(options: AnswerOptions) -> tuple[str, ...]:
    """The fields that `details` gives to every result."""
    wanted = {
        "fused_score": options.fused,
        "scores": bool(options.layers),
        "truncated": options.truncated,
        "passage": options.passages,
    }
    return tuple(name for name, there in wanted.items() if there)


def details(ranking: Ranking, order: Sequence[int], options: AnswerOptions) -> list[Object] | None:
    """One object a candidate of `order`; None where nothing more is to be said."""
    if not names_of(options):
        return None
    found: list[Object] = [{} for _ in order]
    if options.fused and ranking.fused is not None:
        for place, value in enumerate(fused_of(ranking, order)):
            found[place]["fused_score"] = value
    if options.layers and ranking.layers is not None:
        for place, values in enumerate(_by_layer(ranking, order, options)):
            found[place]["scores"] = values
    if options.truncated and ranking.truncated is not None:
        for place, index in enumerate(order):
            found[place]["truncated"] = bool(ranking.truncated[index])
    if options.passages and ranking.passages is not None:
        for place, index in enumerate(order):
            start, end = ranking.passages[index]
            found[place]["passage"] = {"start": start, "end": end}
    return found


def _by_layer(ranking: Ranking, order: Sequence[int], options: AnswerOptions) -> list[Object]:
    """Scores by the name of their layer, as the result's own score is written."""
    logits = np.asarray(ranking.layers, dtype=np.float32)[np.asarray(order, dtype=np.intp)]
    values = logits if options.scores is ScoreKind.RAW else sigmoid(logits)
    names = [str(layer) for layer in options.layers]
    return [dict(zip(names, row, strict=True)) for row in values]


def columns_of(options: AnswerOptions) -> list[tuple[str, Any]]:
    """The same as Parquet columns."""
    import pyarrow as pa

    kinds = {
        "fused_score": pa.float32(),
        "scores": pa.struct([(str(layer), pa.float32()) for layer in options.layers]),
        "truncated": pa.bool_(),
        "passage": pa.struct([("start", pa.int64()), ("end", pa.int64())]),
    }
    return [(name, kinds[name]) for name in names_of(options)]
