"""Measures of a few queries at a time, before and after, by ir_measures (the extra `eval`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_cli.errors import UsageError
from rerank_cli.reports.cases import TOP, Case, Measured

NDCG = "nDCG@10"
MEASURES = (NDCG, "RR@10", "P@1")

Qrels = Mapping[str, Mapping[str, int]]


def check_library() -> None:
    """UsageError if ir_measures is not installed."""
    try:
        import ir_measures  # noqa: F401
    except ImportError as error:
        message = "--qrels needs ir_measures, which is not installed. Fix: pip install 'rerank-cli[eval]'"
        raise UsageError(message) from error


def measured(cases: Sequence[Case], qrels: Qrels) -> list[Measured]:
    """Each case that has judgements with its measures; the best ten of each order decide them all."""
    judged = [case for case in cases if case.id in qrels]
    after = _by_query({case.id: case.after for case in judged}, qrels)
    before = _by_query({case.id: case.before for case in judged if case.before is not None}, qrels)
    return [Measured(case, before.get(case.id, {}), after[case.id]) for case in judged]


def _by_query(orders: Mapping[str, Sequence[str]], qrels: Qrels) -> dict[str, dict[str, float]]:
    if not orders:
        return {}
    import ir_measures

    measures: dict[Any, str] = {ir_measures.parse_measure(name): name for name in MEASURES}
    run = {query: {name: float(TOP - place) for place, name in enumerate(ids)} for query, ids in orders.items()}
    known = {query: dict(qrels[query]) for query in orders}
    values: dict[str, dict[str, float]] = {query: dict.fromkeys(MEASURES, 0.0) for query in orders}
    for found in ir_measures.iter_calc(list(measures), known, run):
        values[found.query_id][measures[found.measure]] = found.value
    return values
