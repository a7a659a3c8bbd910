"""A look at an input without scoring it: what it holds, how long its pairs are, what would be cut, what is bad."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.limits import TokenizerOnly
from rerank_cli.engine.prepare import PairReader, measure
from rerank_cli.formats import Source
from rerank_cli.records import Rejection, Request
from rerank_cli.run.chunks import InputHash, cut
from rerank_cli.run.stages import pair_texts

BUCKETS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_CHUNK_PAIRS = 4096
_EXAMPLES = 5


@dataclass(slots=True)
class Report:
    """What was found. Lengths are tokens of a whole pair, specials included, before anything is cut."""

    records: int = 0
    pairs: int = 0
    truncated: int = 0
    truncated_queries: int = 0
    tokens: int = 0
    longest: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BUCKETS) + 1, dtype=np.int64))

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Label and pairs of each bucket up to the longest pair."""
        names = [f"≤ {limit}" for limit in BUCKETS] + [f"> {BUCKETS[-1]}"]
        used = int(np.flatnonzero(self.histogram).max(initial=0)) + 1
        yield from zip(names[:used], self.histogram[:used].tolist(), strict=True)


def check_input(source: Source, model: TokenizerOnly, limit: int | None) -> Report:
    """Read the input to its end (or `limit` records), tokenize it, count."""
    report = Report()
    records = itertools.islice(source, limit)
    for chunk in cut(records, _CHUNK_PAIRS, lambda: 0, InputHash()):
        report.records += len(chunk.records)
        for record in chunk.records:
            if isinstance(record, Rejection):
                _reject(report, record)
        requests = [record for record in chunk.records if isinstance(record, Request)]
        if requests:
            _measure(report, requests, model)
    return report


def _reject(report: Report, rejection: Rejection) -> None:
    report.rejected[rejection.code] += 1
    if len(report.examples) < _EXAMPLES:
        report.examples.append(str(rejection))


def _measure(report: Report, requests: list[Request], model: TokenizerOnly) -> None:
    sizes = measure(pair_texts(requests), PairReader(model.tokenizer, model.reading.rule, model.limits), whole=True)
    specials = model.reading.rule.template.specials
    report.pairs += len(sizes.lengths)
    report.truncated += int((sizes.kept.query + sizes.kept.passage + specials < sizes.lengths).sum())
    report.truncated_queries += int(sizes.cut_queries.sum())
    report.tokens += int(sizes.lengths.sum())
    report.longest = max(report.longest, int(sizes.lengths.max(initial=0)))
    report.histogram += np.bincount(np.searchsorted(BUCKETS, sizes.lengths), minlength=len(BUCKETS) + 1)
