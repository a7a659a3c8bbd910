"""Measures of rankings by relevance judgements, computed by ir_measures; every name that it knows can be used.

It gets ranks instead of scores, so that the order does not depend on how its providers break ties. Aggregates are over
all judged queries; a query without a ranking counts with the measure's default, which is 0 for most.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.formats.runs.qrels import Qrels

DEFAULT = "nDCG@10,RR@10,AP,R@100,P@10"

_SEPARATOR = re.compile(r",(?![^(]*\))")
_PLAIN = re.compile(r"(\w+)(?:@(\d+(?:\.\d+)?))?")


class Measure(NamedTuple):
    """A measure of ir_measures, and the name by which the user asked for it."""

    name: str
    measure: Any


class Figures(NamedTuple):
    """By measure name: the aggregate, and the value of each judged query."""

    means: dict[str, float]
    values: dict[str, dict[str, float]]


def library() -> Any:
    """ir_measures, imported on first use. UsageError if it is not installed."""
    try:
        import ir_measures
    except ImportError as error:
        raise UsageError("measuring needs ir_measures. Fix: pip install 'rerank-cli[eval]'") from error
    return ir_measures


def parse_measures(text: str) -> list[Measure]:
    """Parse comma-separated names. UsageError for a measure that is unknown or that no installed package computes."""
    names = list(dict.fromkeys(name.strip() for name in _SEPARATOR.split(text) if name.strip()))
    if not names:
        raise UsageError(f"--measures is empty. Fix: --measures {DEFAULT}")
    return [Measure(name, _parse(name)) for name in names]


def _parse(name: str) -> Any:
    library()
    from ir_measures import DefaultPipeline, measures, parse_measure

    try:
        plain = _PLAIN.fullmatch(name)
        family = measures.registry.get(plain[1]) if plain else None
        if plain is None or family is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of ast, which parses the name
                found = parse_measure(name)
        elif plain[2] is None:
            found = family()
        else:
            found = family(**{family.AT_PARAM: family.SUPPORTED_PARAMS[family.AT_PARAM].dtype(plain[2])})
        found.validate_params()
    except (NameError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        reason = shown(str(error), 160)
        raise UsageError(
            f"--measures {shown(name)}: not a measure of ir_measures ({reason}). Fix: nDCG@10, say"
        ) from None
    if not DefaultPipeline.supports(found):
        raise UsageError(f"--measures {shown(name)}: no installed package computes it. Fix: {_packages(found)}")
    return found


def _packages(measure: Any) -> str:
    """How to install the packages that compute a measure for ir_measures."""
    from ir_measures import DefaultPipeline

    able = (provider for provider in DefaultPipeline.providers if provider.supports(measure))
    found = [" ".join(str(provider.install_instructions() or provider.NAME).split()) for provider in able]
    return " or ".join(found) or "another measure"


def measure(measures: Sequence[Measure], qrels: Qrels, rankings: Mapping[str, Sequence[str]]) -> Figures:
    """Measure rankings (document ids by query, best first) over all judged queries."""
    judged = {query: ranking for query, ranking in rankings.items() if query in qrels and ranking}
    run = {q: {name: float(len(names) - rank) for rank, name in enumerate(names)} for q, names in judged.items()}
    kinds = list({m.measure: None for m in measures})
    found = library().evaluator(kinds, qrels).calc(run)
    values: dict[str, dict[str, float]] = {m.name: {} for m in measures}
    for metric in found.per_query:
        for one in measures:
            if one.measure == metric.measure:
                values[one.name][metric.query_id] = float(metric.value)
    return Figures({m.name: float(found.aggregated[m.measure]) for m in measures}, values)
