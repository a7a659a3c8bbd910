"""Evaluation while training: a held-out run is reranked by the model as it is, and measured by ir_measures.

The first evaluation is that of the model before training; every later one is compared with it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.evaluation.evaluate import Evaluation, suspicion
from rerank_cli.evaluation.measures import Figures, Measure, measure, parse_measures
from rerank_cli.evaluation.significance import compare
from rerank_cli.formats import open_source
from rerank_cli.formats.runs.qrels import Qrels, fingerprint_of, read_qrels
from rerank_cli.formats.runs.results import Scores, first_stage, stand_ins
from rerank_cli.formats.shapes.fields import key_of
from rerank_cli.records import Rejection, Request
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.options import HeldOutOptions

ScoreGroups = Callable[[Sequence[DrawnGroup]], Iterator[Sequence[float]]]
"""Logits of the passages of each group, in order."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Judged queries with their candidates in memory; `names` are the documents' ids. `first` measures the first stage.

    `rejected` counts bad records, which are left out. `mark` is a hash of the judgements and the texts.
    """

    measures: Sequence[Measure]
    qrels: Qrels
    groups: Sequence[DrawnGroup]
    names: Sequence[tuple[str, Sequence[str]]]
    first: Figures | None
    rejected: int
    mark: str

    @property
    def decisive(self) -> str:
        """The measure by which evaluations are compared."""
        return self.measures[0].name

    def evaluate(self, score: ScoreGroups, baseline: Mapping[str, Any]) -> Evaluation:
        """Rank by the model's scores. `baseline` has the figures of the model before training, or nothing."""
        run = {
            query: dict(zip(names, scores, strict=True))
            for (query, names), scores in zip(self.names, score(self.groups), strict=True)
        }
        found = measure(self.measures, self.qrels, run)
        missing = len(self.qrels) - len(run)
        if not baseline:
            return Evaluation(len(self.qrels), missing, 0, found)
        values = {
            name: {q: math.nan if v is None else v for q, v in by.items()} for name, by in baseline["values"].items()
        }
        before = Figures(baseline["means"], values)
        differences = {
            one.name: compare(
                [values[one.name][q] for q in self.qrels], [found.values[one.name][q] for q in self.qrels]
            )
            for one in self.measures
        }
        return Evaluation(len(self.qrels), missing, 0, found, before, differences)


def baseline_of(evaluation: Evaluation) -> dict[str, Any]:
    """The figures of an evaluation as a baseline that is saved as JSON."""
    values = {
        name: {query: None if math.isnan(value) else value for query, value in by.items()}
        for name, by in evaluation.after.values.items()
    }
    return {"means": evaluation.after.means, "values": values}


def as_line(evaluation: Evaluation, step: int, seconds: float) -> dict[str, Any]:
    """An evaluation as an object of the log."""
    found: dict[str, Any] = {"event": "evaluation", "step": step, "measures": evaluation.after.means}
    if evaluation.before and evaluation.differences:
        found["baseline"] = evaluation.before.means
        found["differences"] = {name: d and asdict(d) for name, d in evaluation.differences.items()}
    return {**found, "queries": evaluation.queries, "seconds": round(seconds, 2)}


def open_held_out(options: HeldOutOptions, notify: Callable[[str], None]) -> HeldOut:
    """Read the judged queries and their texts. Raises InputError and UsageError."""
    measures, qrels = parse_measures(options.measures, "--eval-measures"), read_qrels(options.qrels)
    groups: list[DrawnGroup] = []
    names: list[tuple[str, Sequence[str]]] = []
    first: dict[str, Scores] = {}
    texts: dict[str, str] = {}  # passages of several queries are in memory once
    rejected = others = 0
    with closing(open_source(options.input, notify)) as source:
        for record in source:
            if isinstance(record, Rejection):
                rejected += 1
                continue
            query = key_of(record.id)
            if query not in qrels:
                others += 1
            elif record.candidates and query not in first:
                passages = tuple(texts.setdefault(candidate.text, candidate.text) for candidate in record.candidates)
                groups.append(DrawnGroup(len(groups), record.query, passages, query_prompt=record.instruction))
                names.append((query, _names(record)))
                first[query] = _first_scores(record)
    where = f"--eval-run {shown(options.input.paths[0], 300)}"
    if not groups:
        raise InputError(f"{where}: none of its {others:,} queries is judged. Fix: another --eval-qrels")
    if remark := suspicion(qrels, first):
        notify(f"{where}: {remark}")
    if rejected:
        notify(f"{where}: {rejected:,} bad records are left out")
    mark = hashlib.blake2b(fingerprint_of(qrels).encode(), digest_size=16)
    for group, (query, ids) in zip(groups, names, strict=True):
        mark.update(orjson.dumps([query, ids, group.query, group.query_prompt, group.passages]))
    return HeldOut(measures, qrels, groups, names, measure(measures, qrels, first), rejected, mark.hexdigest())


def _names(request: Request) -> list[str]:
    return [key_of(index if one.id is None else one.id) for index, one in enumerate(request.candidates)]


def _first_scores(request: Request) -> Scores:
    """The first stage's scores, or stand-ins in the order of the candidates."""
    results, scores = first_stage(request.candidates)
    return stand_ins([result.id for result in results]) if scores is None else scores
