"""Validates and measures an input without scoring it: records, pairs, lengths, truncation, bad records."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.limits import TokenizerOnly
from rerank_cli.engine.rows.prepare import PairTokenizer, tokenize_pairs
from rerank_cli.formats import Source
from rerank_cli.records import Rejection, Request
from rerank_cli.run.chunks import ChunkCutter, InputHash
from rerank_cli.run.stages import pair_texts, too_long

BUCKETS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_CHUNK_PAIRS = 4096
_EXAMPLES = 5


@dataclass(slots=True)
class Report:
    """What an input contains. Lengths are tokens of a whole pair before truncation, special tokens included.

    `empty` counts queries without candidates.
    """

    records: int = 0
    pairs: int = 0
    empty: int = 0
    truncated: int = 0
    truncated_queries: int = 0
    tokens: int = 0
    longest: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BUCKETS) + 1, dtype=np.int64))

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Count bad records, and keep the first as examples."""
        self.rejected.update(rejection.code for rejection in rejections)
        self.examples += map(str, rejections[: _EXAMPLES - len(self.examples)])

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Label and number of pairs of each bucket, up to the longest pair."""
        names = [f"≤ {limit}" for limit in BUCKETS] + [f"> {BUCKETS[-1]}"]
        used = int(np.flatnonzero(self.histogram).max(initial=0)) + 1
        yield from zip(names[:used], self.histogram[:used].tolist(), strict=True)


def check_input(source: Source, model: TokenizerOnly, limit: int | None) -> Report:
    """Read and tokenize all records, or the first `limit`."""
    report, rule = Report(), model.reading.rule
    tokenizer = PairTokenizer(model.tokenizer, rule, model.limits)
    for chunk in ChunkCutter(itertools.islice(source, limit), _CHUNK_PAIRS, lambda: 0, InputHash()):
        rejections = [record for record in chunk.records if isinstance(record, Rejection)]
        requests = [record for record in chunk.records if isinstance(record, Request)]
        report.records += len(chunk.records)
        report.empty += sum(not request.candidates for request in requests)
        report.reject(rejections)
        if not requests:
            continue
        sizes = tokenize_pairs(pair_texts(requests), tokenizer, whole=True)
        kept = sizes.kept.query + sizes.kept.passage + rule.template.specials
        truncated = kept < sizes.lengths
        ends = itertools.accumulate(len(request.candidates) for request in requests)
        parts = zip(requests, ends, strict=True)
        unfit = [too_long(request, truncated[end - len(request.candidates) : end]) for request, end in parts]
        report.reject([rejection for rejection in unfit if rejection])
        report.pairs += len(sizes.lengths)
        report.truncated += int(truncated.sum())
        report.truncated_queries += int(sizes.cut_queries.sum())
        report.tokens += int(sizes.lengths.sum())
        report.longest = max(report.longest, int(sizes.lengths.max(initial=0)))
        report.histogram += np.bincount(np.searchsorted(BUCKETS, sizes.lengths), minlength=len(BUCKETS) + 1)
    return report
