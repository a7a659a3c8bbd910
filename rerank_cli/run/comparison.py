"""How far the scores of one precision are from those of another, on the same pairs, and how long each takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_cli.engine.contract import Session, never
from rerank_cli.engine.results import Logits, by_pair, deepest
from rerank_cli.engine.rows.prepare import Prepared
from rerank_cli.run.verify import kendall_tau


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest absolute difference of logits, and Kendall's τ-b of a query's ranking, averaged over queries."""

    worst: float
    kendall_tau: float


def difference(queries: Sequence[str], found: Logits, exact: Logits) -> Difference:
    """Compare the logits of n pairs, [n] or [n, layers]. If no query has two pairs, τ is that of all pairs together.

    Pairs without a finite score in `exact` are left out. One without a finite score in `found` is infinitely far, and
    ranks last.
    """
    found, exact = deepest(found), deepest(exact)
    kept = np.flatnonzero(np.isfinite(exact))
    finite = np.isfinite(found)
    worst = float(np.abs(found[kept] - exact[kept]).max(initial=0.0)) if finite[kept].all() else math.inf
    ranks = np.where(finite, found, found.min(where=finite, initial=0.0) - 1)
    places: dict[str, list[int]] = {}
    for place in kept.tolist():
        places.setdefault(queries[place], []).append(place)
    ranked = [of_query for of_query in places.values() if len(of_query) > 1] or [kept.tolist()]
    return Difference(worst, sum(kendall_tau(ranks[each], exact[each]) for each in ranked) / len(ranked))


def timed(model: Session, prepared: Prepared, should_stop: Callable[[], bool] = never) -> tuple[float, Logits]:
    """Seconds to score prepared pairs, and the logits of the n pairs. Raises StopRequested, see `Session.score`."""
    begun = time.perf_counter()
    logits = model.score(prepared, should_stop)
    return time.perf_counter() - begun, by_pair(prepared, logits).logits
