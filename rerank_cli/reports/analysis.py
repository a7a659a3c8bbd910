"""The content of a report, collected in one pass over an output. Plain data without presentation."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rerank_cli.reports.cases import Case, MeasuredCase
from rerank_cli.reports.counts import Extremes, RankTable, ScoreCounts

NDCG = "nDCG@10"
MEASURES = (NDCG, "RR@10", "P@1")
EXAMPLES = 5
ROWS = 300
RECORDS = 8
ORIGINS = (10, 20, 50, 100)


@dataclass(slots=True)
class Quality:
    """Measures over the queries with judgements: sums by name, and nDCG@10 of every query.

    `found` counts the judged queries in the output, `compared` those with a known first-stage order; `first` and
    `second` are their nDCG@10 before and after.
    """

    judged_queries: int
    found: int = 0
    compared: int = 0
    sums_before: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MEASURES, 0.0))
    sums_after: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MEASURES, 0.0))
    first: array[float] = field(default_factory=lambda: array("d"))
    second: array[float] = field(default_factory=lambda: array("d"))
    wins: Extremes[MeasuredCase] = field(default_factory=lambda: Extremes(ROWS // 2))
    losses: Extremes[MeasuredCase] = field(default_factory=lambda: Extremes(ROWS // 2))

    def add(self, measured: MeasuredCase) -> None:
        self.found += 1
        for name in MEASURES:
            self.sums_after[name] += measured.after[name]
            self.sums_before[name] += measured.before.get(name, 0.0)
        change = measured.change(NDCG)
        if change is not None:
            self.compared += 1
            self.first.append(measured.before[NDCG])
            self.second.append(measured.after[NDCG])
            (self.wins if change >= 0 else self.losses).offer(abs(change), measured)

    def mean_before(self, name: str) -> float | None:
        return self.sums_before[name] / self.found if self.found and self.compared == self.found else None

    def mean_after(self, name: str) -> float:
        return self.sums_after[name] / self.found if self.found else 0.0

    @property
    def counts(self) -> tuple[int, int, int]:
        """Queries whose nDCG@10 rose, fell, and did not change."""
        changes = [after - before for before, after in zip(self.first, self.second, strict=True)]
        won, lost = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        return won, lost, len(changes) - won - lost


@dataclass(slots=True)
class Findings:
    """Everything in a report. `quality` is None without judgements, `summary` is the content of the `--summary` file.

    `notes` qualify the figures. `first_known` counts the queries whose first result has a known first-stage rank,
    `new_first` those where that rank is not 1.
    """

    output: str
    queries: int = 0
    pairs: int = 0
    rejected: int = 0
    tokens: int | None = None
    truncated: int | None = None
    new_first: int = 0
    first_known: int = 0
    models: list[str] = field(default_factory=list)
    scores: ScoreCounts = field(default_factory=ScoreCounts)
    relevant_scores: ScoreCounts = field(default_factory=ScoreCounts)
    ranks: RankTable = field(default_factory=RankTable)
    quality: Quality | None = None
    climbs: Extremes[Case] = field(default_factory=lambda: Extremes(EXAMPLES))
    longest: Extremes[Case] = field(default_factory=lambda: Extremes(RECORDS))
    most_truncated: Extremes[Case] = field(default_factory=lambda: Extremes(RECORDS))
    listed: list[Case] = field(default_factory=list)
    summary: Mapping[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    notes: list[str] = field(default_factory=list)
