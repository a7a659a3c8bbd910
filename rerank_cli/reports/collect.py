"""Reads an output once, in parallel with its input if given: counts, extremes and a few examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson

from rerank_cli.display import counted, shown
from rerank_cli.errors import InputError
from rerank_cli.evaluation.measures import Measure, measure, parse_measures
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.runs.qrels import Qrels, read_qrels
from rerank_cli.formats.runs.rank_comparison import RankComparison, compare_ranks
from rerank_cli.formats.runs.results import Scores
from rerank_cli.formats.runs.run_file import RunFile, best_of_run
from rerank_cli.reports.analysis import MEASURES, ROWS, Findings, Quality
from rerank_cli.reports.cases import TOP, Case, MeasuredCase, case_of
from rerank_cli.storage.opening import read_whole

_BATCH = 200
_MODELS = 5


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """The files that a report is made from."""

    output: str
    inputs: tuple[str, ...] = ()
    qrels: str | None = None
    baseline: str | None = None
    summary: str | None = None


def open_comparison(output: str, inputs: tuple[str, ...], stack: ExitStack) -> tuple[RunFile, Iterable[RankComparison]]:
    """The output's answers, and its queries with both ranks per result; `stack` closes the files. Raises InputError."""
    answers = RunFile(output)
    stack.callback(answers.close)
    source = open_source(InputOptions(inputs)) if inputs else None
    if source:
        stack.callback(source.close)
    return answers, compare_ranks(answers, source)


def findings(options: ReportOptions) -> Findings:
    """Read all files. Raises InputError for files that cannot be used, and for an output without answers."""
    measures = parse_measures(",".join(MEASURES)) if options.qrels else []
    summary = _read_summary(options.summary) if options.summary else {}
    qrels: Qrels = read_qrels(options.qrels) if options.qrels else {}
    baseline = best_of_run(options.baseline, TOP) if options.baseline else None
    found = Findings(options.output, summary=summary, baseline=options.baseline)
    found.quality = Quality(len(qrels)) if qrels else None
    batch: list[Case] = []
    with ExitStack() as stack:
        answers, queries = open_comparison(options.output, options.inputs, stack)
        for query in queries:
            judged = qrels.get(query.id, {})
            case = case_of(query, judged, None if baseline is None else baseline.get(query.id, {}))
            _add(found, query, case, judged)
            batch.append(case)
            if len(batch) == _BATCH:
                _measure(found, batch, qrels, measures)
                batch.clear()
        _measure(found, batch, qrels, measures)
        found.rejected = answers.rejected
    if not found.queries:
        raise InputError(f"{shown(options.output, 300)}: has no answers")
    found.notes = _notes(found, options)
    return found


def _add(found: Findings, query: RankComparison, case: Case, judged: Mapping[str, int]) -> None:
    """Add a query to the counts and extremes."""
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
    found.longest.offer(case.tokens or case.characters, case)
    if case.truncated:
        found.most_truncated.offer(case.truncated, case)
    if case.moved_from is not None:
        found.first_known += 1
        found.new_first += case.moved_from > 1
        if case.moved_from > 1:
            found.climbs.offer(case.moved_from, case)
    if found.quality is None and len(found.listed) < ROWS:
        found.listed.append(case)


def _measure(found: Findings, cases: Sequence[Case], qrels: Qrels, measures: Sequence[Measure]) -> None:
    """Add the measures of the judged cases: of the top ten, as these measures are (see `cases.Case`)."""
    judged = {case.id: case for case in cases if case.id in qrels}
    if not found.quality or not judged:
        return
    after = _by_query({name: case.after for name, case in judged.items()}, qrels, measures)
    first = {name: case.before for name, case in judged.items() if case.before is not None}
    before = _by_query(first, qrels, measures) if first else {}
    for name, case in judged.items():
        found.quality.add(MeasuredCase(case, before.get(name, {}), after[name]))


def _by_query(run: Mapping[str, Scores], qrels: Qrels, measures: Sequence[Measure]) -> dict[str, dict[str, float]]:
    values = measure(measures, {query: qrels[query] for query in run}, run).values
    return {query: {name: values[name][query] for name in values} for query in run}


def _read_summary(path: str) -> dict[str, Any]:
    what, fix = "is not a JSON object", "Fix: --summary FILE as a run wrote it"
    try:
        value = orjson.loads(read_whole(path))
    except orjson.JSONDecodeError as error:
        raise InputError(f"{shown(path, 300)}: {what} ({error.msg}). {fix}") from None
    if not isinstance(value, dict):
        raise InputError(f"{shown(path, 300)}: {what}. {fix}")
    return value


def _notes(found: Findings, options: ReportOptions) -> list[str]:
    """What a reader needs to know to interpret the figures."""
    notes = []
    quality = found.quality
    if quality and quality.found < quality.judged_queries:
        judged, missing = quality.judged_queries, quality.judged_queries - quality.found
        notes.append(f"{missing:,} of {judged:,} judged queries are not in the output; means leave them out.")
    if quality and quality.found < found.queries:
        notes.append(f"Means leave out {counted(found.queries - quality.found, 'query')} without judgements.")
    if quality and quality.compared < quality.found:
        why = "their first-stage order is unknown" if options.inputs else "the output does not have all candidates"
        unknown = counted(quality.found - quality.compared, "query")
        notes.append(f"nDCG before is unknown for {unknown}: {why} (--input FILE).")
    if not found.ranks.total:
        notes.append("First-stage ranks are unknown: the output has no index and no first-stage scores (--input FILE).")
    if found.rejected:
        notes.append(f"{found.rejected:,} records were rejected by the run and have no answer.")
    return notes
