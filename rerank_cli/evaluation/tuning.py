"""Finds the best fusion weight: mixes both scores of an output at 21 weights and measures each. Runs no model.

The mix is that of `rerank run --fuse weighted`, to the bit; it can be written as a run. The best mean is measured on
the queries that chose the weight and is therefore too high; the cross-validated mean is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rerank_cli.choices import Normalize
from rerank_cli.display import shown
from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation.measures import Measure, measure
from rerank_cli.formats.runs.qrels import Qrels
from rerank_cli.formats.runs.results import Result, stand_ins
from rerank_cli.ranking import LARGEST, weighted

WEIGHTS = tuple(step / 20 for step in range(21))
_SEED = 0


@dataclass(frozen=True, slots=True)
class Tuning:
    """The mean of a measure by weight, from 0, the first stage alone, to 1, the reranker alone.

    `best` is the weight with the highest mean, of equal means the one nearest to 0.5. `held_out` is the mean over all
    queries of their value at the weight that was best on the other `folds` − 1 parts, None if there are too few
    queries. `raw` is whether the output holds logits: a weight is valid for one kind of scores only.
    """

    measure: str
    normalize: Normalize
    curve: dict[float, float]
    best: float
    folds: int
    held_out: float | None
    raw: bool = False

    @property
    def flags(self) -> str:
        """Flags of `rerank run` for the best weight."""
        scores = " --scores raw" if self.raw else ""
        return f"--fuse weighted --fuse-weight {self.best:g} --normalize {self.normalize}{scores}"

    def as_json(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "normalize": self.normalize.value,
            "best_weight": self.best,
            "best": self.curve[self.best],
            "flags": self.flags,
            "folds": self.folds,
            "held_out": self.held_out,
            "curve": [{"weight": weight, "mean": mean} for weight, mean in self.curve.items()],
        }


def tune(
    path: str,
    rankings: Mapping[str, Sequence[Result]],
    qrels: Qrels,
    by: Measure,
    normalize: Normalize,
    folds: int,
) -> Tuning:
    """Try all weights on the judged queries of an output. InputError if scores or candidates are missing."""
    if folds < 2:
        raise UsageError(f"--folds {folds}: expected 2 or more parts")
    for query, documents in rankings.items():
        check_mixable(path, query, documents)
    mixable = {query: Mixable(documents) for query, documents in rankings.items()}
    judged = {query: qrels[query] for query in rankings}
    values = []
    for weight in WEIGHTS:
        mixed = ((query, one.mixed(weight, normalize)) for query, one in mixable.items())
        run = {query: stand_ins([result.id for result, _ in documents]) for query, documents in mixed}
        found = measure([by], judged, run).values[by.name]
        values.append([found[query] for query in judged])
    by_weight = np.array(values)
    if np.isnan(by_weight).any():
        raise UsageError(f"--tune-weight: {by.name} has no value for some queries. Fix: another of --measures first")
    means = by_weight.mean(axis=1)
    curve = dict(zip(WEIGHTS, means.tolist(), strict=True))
    raw = any(not 0 <= document.score <= 1 for documents in rankings.values() for document in documents)
    return Tuning(by.name, normalize, curve, WEIGHTS[_best(means)], folds, _held_out(by_weight, folds), raw)


class Mixable:
    """The documents of a query with both scores, to be mixed with several weights."""

    def __init__(self, documents: Sequence[Result]) -> None:
        self._documents = documents
        # The order of the input, in which a run normalizes: sums of floats depend on it.
        self._given = np.array(sorted(range(len(documents)), key=lambda n: documents[n].index or 0), dtype=np.intp)
        scores = np.array([document.score for document in documents], dtype=np.float32)
        self._scores = scores[self._given].astype(np.float64)
        self._first = np.array([document.first_score for document in documents], dtype=np.float64)[self._given]
        by_model = [document.score if document.logit is None else document.logit for document in documents]
        self._reranked = np.argsort(-np.array(by_model, dtype=np.float64), kind="stable")

    def mixed(self, weight: float, normalize: Normalize) -> Iterator[tuple[Result, float]]:
        """Results with mixed scores (float32 values), best first, ties in the reranker's order."""
        if not self._documents:
            return iter(())
        mixed = np.empty(len(self._documents), dtype=np.float32)
        mixed[self._given] = weighted(self._scores, self._first, weight, normalize)
        order = self._reranked[np.argsort(-mixed[self._reranked], kind="stable")]
        return zip((self._documents[place] for place in order.tolist()), mixed[order].tolist(), strict=True)


def check_mixable(path: str, query: str, documents: Sequence[Result]) -> None:
    """Raise InputError if a score is missing (or beyond float32), or if there are fewer documents than candidates."""
    where = f"{shown(path, 300)}: query {shown(query, 40)}"
    if not all(abs(document.score) <= LARGEST for document in documents):
        raise InputError(f"{where} has documents without a relevance score. Fix: an output of rerank run")
    if not all(document.first_score is not None and abs(document.first_score) <= LARGEST for document in documents):
        fix = "Fix: rerank candidates that have a `score`, with --format api or pairs"
        raise InputError(f"{where} has documents without a first-stage score. {fix}")
    last = max((document.index for document in documents if document.index is not None), default=-1)
    if last >= len(documents):
        got = f"got {len(documents)}, one is number {last + 1} of the input"
        raise InputError(f"{where} has too few candidates ({got}). Fix: an output without --top-n and --min-score")


def _best(means: Any) -> int:
    """Index of the highest mean; of means that differ in the last bits only, the one nearest to the middle."""
    highest = np.flatnonzero(means >= means.max() - 1e-12)
    return int(min(highest, key=lambda index: abs(WEIGHTS[index] - 0.5)))


def _held_out(by_weight: Any, folds: int) -> float | None:
    """Cross-validation; queries are assigned to folds in an order drawn with a fixed seed."""
    count = by_weight.shape[1]
    if count < folds:
        return None
    fold = np.random.default_rng(_SEED).permutation(count) % folds
    chosen = [_best(by_weight[:, fold != part].mean(axis=1)) for part in range(folds)]
    return float(np.mean([by_weight[chosen[fold[query]], query] for query in range(count)]))
