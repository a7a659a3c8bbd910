"""Measures of rankings by relevance judgements, computed by ir_measures; every name that it knows can be used.

It gets scores as they are in a file, in the order of the file: its providers break ties in different ways. Aggregates
are over all judged queries; a query without a ranking counts with the measure's default, which is 0 for most.
"""

from __future__ import annotations

import difflib
import math
import re
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.formats.runs.qrels import Qrels
from rerank_cli.formats.runs.results import Scores

DEFAULT = "nDCG@10,RR@10,AP,R@100,P@10"

_SEPARATOR = re.compile(r",(?![^(]*\))")
_BEGIN = re.compile(r"\w+")
_UNSET = re.compile(r"invalid param (\w+)=<object object.*")  # a parameter without a default that is not given
_PLAIN = re.compile(r"(\w+)(?:@(\d+(?:\.\d+)?))?")


class Measure(NamedTuple):
    """A measure of ir_measures, and the name by which the user asked for it."""

    name: str
    measure: Any


class Figures(NamedTuple):
    """By measure name: the aggregate, and the value of each judged query, NaN if the measure has none for it."""

    means: dict[str, float]
    values: dict[str, dict[str, float]]


def library() -> Any:
    """ir_measures, imported on first use. UsageError if it is not installed."""
    try:
        import ir_measures
    except ImportError as error:
        raise UsageError("measuring needs ir_measures. Fix: pip install 'rerank-cli[eval]'") from error
    return ir_measures


def parse_measures(text: str, flag: str = "--measures") -> list[Measure]:
    """Parse comma-separated names. UsageError for a measure that is unknown or that no installed package computes.

    `flag` is the flag that the user gave them by, for messages.
    """
    names = list(dict.fromkeys(name.strip() for name in _SEPARATOR.split(text) if name.strip()))
    if not names:
        raise UsageError(f"{flag} is empty. Fix: {flag} {DEFAULT}")
    return [Measure(name, _parse(name, flag)) for name in names]


def _parse(name: str, flag: str) -> Any:
    irm = library()
    known = irm.measures.registry
    spelled = {written.lower(): written for written in reversed(known)}
    begin = _BEGIN.match(name)
    text = spelled.get(begin[0].lower(), begin[0]) + name[begin.end() :] if begin else name
    try:
        plain = _PLAIN.fullmatch(text)
        family = known.get(plain[1]) if plain else None
        if plain is None or family is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of ast, which parses the name
                found = irm.parse_measure(text)
        elif plain[2] is None:
            found = family()
        else:
            found = family(**{family.AT_PARAM: family.SUPPORTED_PARAMS[family.AT_PARAM].dtype(plain[2])})
        found.validate_params()
    except (NameError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        reason = shown(_UNSET.sub(r"needs the parameter \1", str(error)), 160)
        wrong = begin[0].lower() if begin else ""
        close = difflib.get_close_matches(wrong, spelled, 1) if wrong not in spelled else []
        fix = shown(spelled[close[0]] + name[len(wrong) :]) if close else "nDCG@10, say"
        raise UsageError(f"{flag} {shown(name)}: not a measure of ir_measures ({reason}). Fix: {fix}") from None
    if irm.pyndeval.supports(found):
        what, fix = "needs judgements by subtopic, which are not read", f"the command ir_measures QRELS RUN {name}"
        raise UsageError(f"{flag} {shown(name)}: {what}. Fix: {shown(fix)}")
    if not irm.DefaultPipeline.supports(found):
        raise UsageError(f"{flag} {shown(name)}: no installed package computes it. Fix: {_packages(found)}")
    return found


def measure_names() -> list[str]:
    """The default measures, and the names of all others without parameters."""
    return [*DEFAULT.split(","), *library().measures.registry]


def _packages(measure: Any) -> str:
    """How to install the packages that compute a measure for ir_measures."""
    able = (provider for provider in library().DefaultPipeline.providers if provider.supports(measure))
    found = [" ".join(str(provider.install_instructions() or provider.NAME).split()) for provider in able]
    return " or ".join(found) or "another measure"


def measure(measures: Sequence[Measure], qrels: Qrels, run: Mapping[str, Scores]) -> Figures:
    """Measure a run (scores by query and document) over all judged queries.

    Raises UsageError if ir_measures fails on these files.
    """
    ranked = {query: scores for query, scores in run.items() if query in qrels and scores}
    kinds = list({m.measure: None for m in measures})
    try:
        found = library().evaluator(kinds, qrels).calc(ranked)
    except subprocess.CalledProcessError as error:  # gdeval is a script
        names = ", ".join(m.name for m in measures if library().gdeval.supports(m.measure))
        needs = "it needs numbers as query ids, relevance up to 4, and document ids without white space"
        raise UsageError(f"--measures {names}: gdeval fails on these files ({needs}). Fix: other measures") from error
    except (ArithmeticError, AssertionError, ValueError) as error:
        names = ", ".join(m.name for m in measures)
        raise UsageError(f"--measures {names}: ir_measures fails ({shown(str(error), 160)})") from error
    values = {m.name: dict.fromkeys(qrels, math.nan) for m in measures}
    for metric in found.per_query:
        for one in measures:
            if one.measure == metric.measure and metric.query_id in qrels:
                values[one.name][metric.query_id] = float(metric.value)
    return Figures({m.name: float(found.aggregated[m.measure]) for m in measures}, values)
