"""What rankings are worth by judgements. ir_measures does the measuring; here it is asked, by whatever name it knows.

Orders go in, not scores: every provider behind ir_measures then sees the same order, whatever it does with ties.
Aggregates are over all judged queries; one that was not ranked counts with the measure's default, which is 0 for most.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.formats.runs.qrels import Qrels

DEFAULT = "nDCG@10,RR@10,AP,R@100,P@10"

_APART = re.compile(r",(?![^(]*\))")
_PLAIN = re.compile(r"(\w+)(?:@(\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of ir_measures under the name that it was asked for by."""

    name: str
    measure: Any


@dataclass(frozen=True, slots=True)
class Figures:
    """By measure: the aggregate, and the value of each judged query."""

    means: dict[str, float]
    values: dict[str, dict[str, float]]


def library() -> Any:
    """ir_measures, once it is needed."""
    try:
        import ir_measures
    except ImportError as error:
        raise UsageError("measuring needs ir_measures. Fix: pip install 'rerank-cli[eval]'") from error
    return ir_measures


def parse_measures(text: str) -> list[Measure]:
    """Measures from names with commas between them. UsageError for one that is unknown or cannot be worked out here."""
    names = list(dict.fromkeys(name.strip() for name in _APART.split(text) if name.strip()))
    if not names:
        raise UsageError(f"--measures names none. Fix: --measures {DEFAULT}")
    return [Measure(name, _parse(name)) for name in names]


def _parse(name: str) -> Any:
    library()
    from ir_measures import DefaultPipeline, measures, parse_measure

    try:
        plain = _PLAIN.fullmatch(name)
        if plain and plain[1] in measures.registry and plain[2] is None:
            found = measures.registry[plain[1]]()
        elif plain and plain[1] in measures.registry:
            family = measures.registry[plain[1]]
            parameter = family.AT_PARAM
            found = family(**{parameter: family.SUPPORTED_PARAMS[parameter].dtype(plain[2])})
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of ast, which it reads names with
                found = parse_measure(name)
        found.validate_params()
    except (NameError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        reason = shown(str(error), 160)
        raise UsageError(f"--measures {shown(name)}: no measure of ir_measures ({reason}). Fix: nDCG@10, say") from None
    if not DefaultPipeline.supports(found):
        raise UsageError(f"--measures {shown(name)}: nothing that is installed works it out. Fix: {_ways(found)}")
    return found


def _ways(measure: Any) -> str:
    """What to install for a measure that ir_measures knows and leaves to another package."""
    from ir_measures import DefaultPipeline

    able = (provider for provider in DefaultPipeline.providers if provider.supports(measure))
    found = [" ".join(str(provider.install_instructions() or provider.NAME).split()) for provider in able]
    return " or ".join(found) or "another measure"


def measure(measures: Sequence[Measure], qrels: Qrels, rankings: Mapping[str, Sequence[str]]) -> Figures:
    """Measure rankings: document ids by query, best first."""
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
