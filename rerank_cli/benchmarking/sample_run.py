"""Runs a sample through the pipeline of a run, and records what was scored, when, and at what cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from rerank_cli.benchmarking.analysis import Times
from rerank_cli.benchmarking.input_sample import InputSample
from rerank_cli.choices import OnError, OutputFormat
from rerank_cli.engine.contract import RowNotes, Session, Work, never
from rerank_cli.engine.rows.prepare import PairTexts, PlannedRow, Prepared
from rerank_cli.formats import AnswerOptions, OutputOptions, open_sink
from rerank_cli.run.chunks import ChunkCutter, InputHash
from rerank_cli.run.committer import Committer
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.pipeline import stream
from rerank_cli.run.record_guards import guarded
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.local import in_this_process
from rerank_cli.run.stages import rank_chunk, slice_size

if TYPE_CHECKING:
    from rerank_cli.engine.profiling.flops import Costs, Flops

_SMALLEST_CHUNK = 32


class BenchSession(Session, Protocol):
    """An open model that can be measured."""

    @property
    def least_rows(self) -> int: ...
    def resized(self, batch_tokens: int) -> Session: ...
    def costs(self) -> Costs | None: ...


@dataclass(frozen=True, slots=True)
class SampleRun:
    """Measurements of a sample, scored in chunks of `chunk_pairs`.

    `tokens` are those of all pairs, duplicates included; `texts` is the number of texts that were tokenized, of two per
    pair; `work` is the device's. `cpu` is in seconds, of all threads. `flops` is None if operations are not counted.
    `pace` has seconds and tokens of each part, waits included.
    """

    times: Times
    chunk_pairs: int
    pairs: int
    tokens: int
    truncated: int
    duplicates: int
    texts: int
    work: Work
    cpu: float
    flops: Flops | None
    pace: Sequence[tuple[float, int]]

    @property
    def padding(self) -> float:
        return 1 - self.work.tokens / self.work.computed if self.work.computed else 0.0


def run_sample(session: BenchSession, sample: InputSample, folder: Path, stop: Callable[[], bool] = never) -> SampleRun:
    """Read, tokenize, score and write the sample as a run does, and measure how long each stage waits."""
    probe, stats, before = _Probe(session), RunStatistics(), asdict(session.work)
    chunk_pairs = min(session.sizes.chunk_pairs, max(_SMALLEST_CHUNK, sample.pairs // 4))
    output = OutputOptions(str(folder / "sample.jsonl"), OutputFormat.API, AnswerOptions(session.facts.name))
    sink = open_sink(output, columns=None, shape=sample.shape)
    committer = Committer(sink, None, stats, lambda _: None, partial(rank_chunk, top_n=None), OnError.SKIP)
    journal = Journal(None, {}, lambda: 0)
    records = guarded(sample.read(), OnError.SKIP, None, stats)
    begun, cpu_before = time.perf_counter(), time.process_time()
    try:
        scoring = partial(in_this_process, probe, journal, stats)
        stream(
            ChunkCutter(records, chunk_pairs, lambda: 0, InputHash()),
            slice_size(session.facts, chunk_pairs),
            scoring,
            committer,
            journal,
            stats,
            stop,
        )
    finally:
        sink.abandon()
    cpu = time.process_time() - cpu_before
    seconds, spans = stats.seconds, [span for span in probe.spans if span[2]]
    lead_in = spans[0][0] - begun
    times = Times(
        wall=spans[-1][1] - spans[0][0],
        device=sum(end - start for start, end, _ in spans),
        rows_wait=max(0.0, seconds["wait for rows"] - lead_in),
        output_wait=seconds["wait for output"],
        input_wait=seconds["wait for input"],
        tokenize=seconds["tokenize"],
        read=seconds["read"],
        write=seconds["write"] + seconds.get("commit", 0.0),
    )
    costs = session.costs()
    flops = None
    if costs is not None:
        first, *others = [costs.of(row.row) for row in probe.rows]
        flops = sum(others, start=first)
    ends = [spans[0][0], *(end for _, end, _ in spans)]
    return SampleRun(
        times=times,
        chunk_pairs=chunk_pairs,
        pairs=stats.pairs,
        tokens=stats.tokens,
        truncated=stats.truncated,
        duplicates=stats.duplicates,
        texts=probe.texts,
        work=Work(**{name: value - before[name] for name, value in asdict(session.work).items()}),
        cpu=cpu,
        flops=flops,
        pace=[(end - previous, tokens) for previous, (_, end, tokens) in zip(ends, spans, strict=False)],
    )


class _Probe:
    """A session that records what goes through it, and when."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.facts = session.facts
        self.sizes = session.sizes
        self.rows: list[PlannedRow] = []
        self.texts = 0
        self.spans: list[tuple[float, float, int]] = []

    @property
    def work(self) -> Work:
        return self._session.work

    def prepare(self, pairs: PairTexts) -> Prepared:
        prepared = self._session.prepare(pairs)
        self.rows += prepared.rows
        self.texts += prepared.texts
        return prepared

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        begun = time.perf_counter()
        scores = self._session.score(prepared, should_stop, notes)
        self.spans.append((begun, time.perf_counter(), int(prepared.tokens.sum())))
        return scores

    def score_plainly(self, pairs: PairTexts) -> npt.NDArray[np.float32]:
        return self._session.score_plainly(pairs)
