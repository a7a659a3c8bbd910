"""One pass over an output, and over its input beside it where that is given: counts, extremes and a few examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.evaluation.measures import Measure, measure, parse_measures
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.runs.qrels import Qrels, read_qrels
from rerank_cli.formats.runs.rank_comparison import RankComparison, compare_ranks
from rerank_cli.formats.runs.results import RunFile, best_of_run
from rerank_cli.reports.analysis import MEASURES, ROWS, Findings, Quality
from rerank_cli.reports.cases import TOP, Case, Measured, case_of

_BATCH = 200
_MODELS = 5


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Which files a report is made of."""

    output: str
    inputs: tuple[str, ...] = ()
    qrels: str | None = None
    baseline: str | None = None
    summary: str | None = None


def findings(options: ReportOptions) -> Findings:
    """Read everything. Raises InputError for files that cannot be used, and where the output is empty."""
    measures = parse_measures(",".join(MEASURES)) if options.qrels else []
    summary = _read_summary(options.summary) if options.summary else {}
    qrels: Qrels = read_qrels(options.qrels) if options.qrels else {}
    baseline = best_of_run(options.baseline, TOP) if options.baseline else None
    found = Findings(options.output, summary=summary, baseline=options.baseline)
    found.quality = Quality(len(qrels)) if qrels else None
    with ExitStack() as stack:
        answers = RunFile(options.output)
        stack.callback(answers.close)
        source = open_source(InputOptions(options.inputs)) if options.inputs else None
        if source:
            stack.callback(source.close)
        _gather(found, compare_ranks(answers, source), qrels, baseline, measures)
        found.rejected = answers.rejected
    if not found.queries:
        raise InputError(f"{shown(options.output, 300)}: there are no answers in it")
    found.notes = _notes(found, options)
    return found


def _gather(
    found: Findings,
    queries: Iterable[RankComparison],
    qrels: Qrels,
    baseline: Mapping[str, Sequence[str]] | None,
    measures: Sequence[Measure],
) -> None:
    waiting: list[Case] = []
    for query in queries:
        judged = qrels.get(query.id, {})
        _count(found, query, judged)
        case = case_of(query, judged, None if baseline is None else baseline.get(query.id, ()))
        _keep(found, case)
        waiting.append(case)
        if len(waiting) == _BATCH:
            _measure(found, waiting, qrels, measures)
            waiting.clear()
    _measure(found, waiting, qrels, measures)


def _count(found: Findings, query: RankComparison, judged: Mapping[str, int]) -> None:
    found.queries += 1
    found.pairs += len(query.results)
    if query.tokens is not None:
        found.tokens = (found.tokens or 0) + query.tokens
    if query.model and query.model not in found.models and len(found.models) < _MODELS:
        found.models.append(query.model)
    for place in query.results:
        result = place.result
        found.scores.add(result)
        if judged.get(result.id, 0) > 0:
            found.relevant_scores.add(result)
        if place.first_rank is not None:
            found.ranks.add(place.first_rank, place.rank)
        if result.truncated is not None:
            found.truncated = (found.truncated or 0) + bool(result.truncated)
    if query.results and query.results[0].first_rank is not None:
        found.first_known += 1
        found.new_first += query.results[0].first_rank > 1


def _keep(found: Findings, case: Case) -> None:
    found.longest.offer(case.tokens or case.characters, lambda: case)
    if case.truncated:
        found.most_truncated.offer(case.truncated, lambda: case)
    if case.moved_from is not None and case.moved_from > 1:
        found.climbs.offer(case.moved_from, lambda: case)
    if found.quality is None and len(found.listed) < ROWS:
        found.listed.append(case)


def _measure(found: Findings, cases: Sequence[Case], qrels: Qrels, measures: Sequence[Measure]) -> None:
    """Add the measures of the judged cases; those of the best ten of both orders."""
    judged = {case.id: case for case in cases if case.id in qrels}
    if not found.quality or not judged:
        return
    first = {name: case.before for name, case in judged.items() if case.before is not None}
    after = _by_query({name: case.after for name, case in judged.items()}, qrels, measures)
    before = _by_query(first, qrels, measures) if first else {}
    for name, case in judged.items():
        found.quality.add(Measured(case, before.get(name, {}), after[name]))


def _by_query(
    orders: Mapping[str, Sequence[str]], qrels: Qrels, measures: Sequence[Measure]
) -> dict[str, dict[str, float]]:
    values = measure(measures, {query: qrels[query] for query in orders}, orders).values
    return {query: {name: values[name][query] for name in values} for query in orders}


def _read_summary(path: str) -> dict[str, Any]:
    try:
        value = orjson.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{shown(path, 300)}: cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"{shown(path, 300)}: is not JSON ({error.msg}). Fix: --summary FILE as a run wrote it"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{shown(path, 300)}: is not a JSON object. Fix: --summary FILE as a run wrote it")
    return value


def _notes(found: Findings, options: ReportOptions) -> list[str]:
    """What a reader must know to take the figures for what they are."""
    notes = []
    quality = found.quality
    if quality and quality.found < quality.judged_queries:
        judged, missing = quality.judged_queries, quality.judged_queries - quality.found
        notes.append(f"{missing:,} of {judged:,} judged queries are not in the output; means leave them out.")
    if quality and quality.found < found.queries:
        notes.append(f"{found.queries - quality.found:,} queries have no judgements; means leave them out.")
    if quality and quality.compared < quality.found:
        why = "the output does not hold all candidates" if not options.inputs else "their first order is unknown"
        notes.append(f"nDCG before is not known of {quality.found - quality.compared:,} queries: {why} (--input FILE).")
    if not found.ranks.total:
        notes.append(
            "First-stage ranks are not known: no index and no first-stage scores in the output (--input FILE)."
        )
    if found.rejected:
        notes.append(f"{found.rejected:,} records were rejected by the run and have no answer.")
    return notes
