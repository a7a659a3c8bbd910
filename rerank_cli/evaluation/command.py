"""`rerank eval` from file names to figures: reads judgements and rankings, and says what looks wrong about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rerank_cli.choices import Normalize
from rerank_cli.errors import UsageError
from rerank_cli.evaluation.comparison import Evaluation, check_overlap, evaluate, suspicion
from rerank_cli.evaluation.measures import DEFAULT, parse_measures
from rerank_cli.evaluation.tuning import Tuning, tune
from rerank_cli.formats import InputOptions
from rerank_cli.formats.runs.qrels import Qrels, read_qrels
from rerank_cli.formats.runs.results import Found, read_rankings
from rerank_cli.formats.shapes.fields import names_from
from rerank_cli.storage.paths import STREAM

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured. With `answered`, judged queries count only where all runs at hand have them."""

    run: str
    qrels: str
    baseline: str | None = None
    measures: str | None = None
    answered: bool = False
    id_field: str | None = None
    doc_id_field: str | None = None


def worked_out(asked: Asked, say: Say) -> Evaluation:
    """The figures of a run, beside those of a baseline if one is named."""
    measures = parse_measures(asked.measures or DEFAULT)
    qrels = _judgements(asked)
    after, others = _names(asked, asked.run, qrels, say)
    before = _names(asked, asked.baseline, qrels, say)[0] if asked.baseline else None
    if asked.answered:
        common = after.keys() & before.keys() if before is not None else after.keys()
        if not common:
            raise UsageError("--answered: no judged query is in both runs. Fix: leave it out")
        qrels = {query: judged for query, judged in qrels.items() if query in common}
    return evaluate(measures, qrels, after, before, others)


def tuned(asked: Asked, normalize: Normalize, folds: int, say: Say) -> Tuning:
    """The best weight for an output that holds the scores of both stages."""
    measures = parse_measures(asked.measures or DEFAULT)
    qrels = _judgements(asked)
    found = _read(asked, asked.run, qrels, say)
    return tune(asked.run, found.rankings, qrels, measures[0], normalize, folds)


def _judgements(asked: Asked) -> Qrels:
    if [asked.run, asked.qrels, asked.baseline].count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    return read_qrels(asked.qrels)


def _names(asked: Asked, path: str, qrels: Qrels, say: Say) -> tuple[dict[str, list[str]], int]:
    found = _read(asked, path, qrels, say)
    names = {query: [result.id for result in results] for query, results in found.rankings.items()}
    return names, found.others


def _read(asked: Asked, path: str, qrels: Qrels, say: Say) -> Found:
    fields = names_from(InputOptions((path,), id_field=asked.id_field, doc_id_field=asked.doc_id_field))
    found = read_rankings(path, qrels, fields)
    names = {query: [result.id for result in results] for query, results in found.rankings.items()}
    check_overlap(path, qrels, names, found.others)
    if remark := suspicion(qrels, names):
        say(f"{path}: {remark}")
    return found
