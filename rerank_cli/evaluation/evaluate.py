"""Evaluation of a run by relevance judgements, alone or against a baseline: one line, or an object for JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rerank_cli.choices import Normalize
from rerank_cli.display import shown
from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation.measures import DEFAULT, Figures, Measure, measure, parse_measures
from rerank_cli.evaluation.significance import Difference, compare
from rerank_cli.evaluation.tuning import Tuning, tune
from rerank_cli.formats import InputOptions
from rerank_cli.formats.runs.qrels import Qrels, read_qrels
from rerank_cli.formats.runs.results import Scores
from rerank_cli.formats.runs.run_file import Found, read_rankings
from rerank_cli.formats.shapes.fields import Names, names_from
from rerank_cli.storage.paths import STREAM

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measures over `queries` judged queries, of which `missing` are not in the run; `unjudged` others are ignored.

    `before` and `differences` (by measure) are None if there is no baseline.
    """

    queries: int
    missing: int
    unjudged: int
    after: Figures
    before: Figures | None = None
    differences: dict[str, Difference | None] | None = None

    @property
    def line(self) -> str:
        """`nDCG@10 0.6770 → 0.7130, …; 300 judged queries`."""
        means = self.before.means if self.before else {}
        before = {name: f"{mean:.4f} → " for name, mean in means.items()}
        figures = [f"{name} {before.get(name, '')}{mean:.4f}" for name, mean in self.after.means.items()]
        missing = f", {self.missing:,} of them not ranked" if self.missing else ""
        return f"{', '.join(figures)}; {self.queries:,} judged quer{'y' if self.queries == 1 else 'ies'}{missing}"

    def as_json(self, per_query: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {
            "queries": self.queries,
            "missing": self.missing,
            "unjudged": self.unjudged,
            "means": self.after.means,
        }
        if self.before and self.differences:
            found["baseline_means"] = self.before.means
            found["differences"] = {name: d and asdict(d) for name, d in self.differences.items()}
        if per_query:
            found["per_query"] = [
                {"id": query, "values": after} | ({} if before is None else {"baseline_values": before})
                for query, before, after in self.by_query()
            ]
        return found

    def by_query(self) -> list[tuple[str, dict[str, float] | None, dict[str, float]]]:
        """Each judged query with its values before and after, by measure. Sorted by id, numbers first."""
        queries = next(iter(self.after.values.values()))

        def values(figures: Figures, query: str) -> dict[str, float]:
            return {name: figures.values[name][query] for name in self.after.means}

        return [
            (query, values(self.before, query) if self.before else None, values(self.after, query))
            for query in sorted(queries, key=lambda q: (not q.isdecimal(), int(q) if q.isdecimal() else q))
        ]


def evaluate(
    measures: Sequence[Measure],
    qrels: Qrels,
    after: Mapping[str, Scores],
    before: Mapping[str, Scores] | None = None,
    unjudged: int = 0,
) -> Evaluation:
    """Evaluate a run (scores by query and document) over all judged queries."""
    found = measure(measures, qrels, after)
    missing = sum(not after.get(query) for query in qrels)
    if before is None:
        return Evaluation(len(qrels), missing, unjudged, found)
    other = measure(measures, qrels, before)
    differences = {
        m.name: compare([other.values[m.name][q] for q in qrels], [found.values[m.name][q] for q in qrels])
        for m in measures
    }
    return Evaluation(len(qrels), missing, unjudged, found, other, differences)


def check_overlap(path: str, qrels: Qrels, run: Mapping[str, Scores], others: int) -> None:
    """InputError if no query of the run is judged, which means that the query ids do not match."""
    if not run:
        got = f"got {others:,} others, expected ids like {shown(next(iter(qrels)), 40)}" if others else "it is empty"
        raise InputError(f"{shown(path, 300)}: none of its queries is judged ({got}). Fix: another --qrels")


def suspicion(qrels: Qrels, run: Mapping[str, Scores]) -> str | None:
    """A warning if no document of the run is judged, which mostly means that the document ids do not match."""
    if any(document in qrels[query] for query, documents in run.items() for document in documents):
        return None
    query, documents = next(iter(run.items()))
    got = f"query {shown(query, 40)} has {shown(next(iter(documents)), 40) if documents else 'none'}"
    return f"none of the documents is judged: {got}, the judgements {shown(next(iter(qrels[query])), 40)}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of `rerank eval`. `answered` restricts judged queries to those in the run and in the baseline."""

    run: str
    qrels: str
    baseline: str | None = None
    measures: str | None = None
    answered: bool = False
    id_field: str | None = None
    doc_id_field: str | None = None

    @property
    def fields(self) -> Names:
        return names_from(InputOptions((self.run,), id_field=self.id_field, doc_id_field=self.doc_id_field))


def worked_out(asked: Asked, say: Say) -> Evaluation:
    """Evaluate a run file, against a baseline if there is one."""
    measures, qrels = _measures_and_qrels(asked)
    found, after = _read(asked, asked.run, qrels, say)
    unjudged = found.others
    del found  # it holds all texts
    before = _read(asked, asked.baseline, qrels, say)[1] if asked.baseline else None
    if asked.answered:
        common = after.keys() & before.keys() if before is not None else after.keys()
        if not common:
            raise UsageError("--answered: no judged query is in both runs. Fix: leave it out")
        qrels = {query: judged for query, judged in qrels.items() if query in common}
    return evaluate(measures, qrels, after, before, unjudged)


def tuned(asked: Asked, normalize: Normalize, folds: int, say: Say) -> Tuning:
    """Find the best fusion weight for an output that holds the scores of both stages."""
    measures, qrels = _measures_and_qrels(asked)
    found = _read(asked, asked.run, qrels, say)[0]
    rankings = {query: item.results for query, item in found.rankings.items()}
    return tune(asked.run, rankings, qrels, measures[0], normalize, folds)


def _measures_and_qrels(asked: Asked) -> tuple[list[Measure], Qrels]:
    measures = parse_measures(asked.measures or DEFAULT)
    if [asked.run, asked.qrels, asked.baseline].count(STREAM) > 1:
        raise UsageError("stdin can be read once only (got - more than once)")
    return measures, read_qrels(asked.qrels)


def _read(asked: Asked, path: str, qrels: Qrels, say: Say) -> tuple[Found, dict[str, Scores]]:
    """The rankings of judged queries, and the scores to compute measures from."""
    found = read_rankings(path, qrels, asked.fields)
    run = {query: item.measured for query, item in found.rankings.items()}
    check_overlap(path, qrels, run, found.others)
    if remark := suspicion(qrels, run):
        say(f"{path}: {remark}")
    return found, run
