"""How fast this machine scores that file: a sample goes through the real pipeline, and is set against what limits it.

Measured are pace, the share of the device's own matrix-multiply rate, who waits for whom, and sizes of rows; estimated
is the time for the whole input. The output of the sample goes to a temporary folder and is removed.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.contract import ModelFacts, ModelOptions, RowNotes, Session, Work, never
from rerank_cli.engine.prepare import PairTexts, PlannedRow, Prepared
from rerank_cli.errors import InputError
from rerank_cli.formats import AnswerOptions, InputOptions, OutputFormat, OutputOptions, open_sink, open_source
from rerank_cli.jobs.choices import OnError
from rerank_cli.jobs.chunks import cut
from rerank_cli.jobs.findings import Estimate, Limit, Times, estimate, limit_of
from rerank_cli.jobs.intake import guarded
from rerank_cli.jobs.journal import Journal
from rerank_cli.jobs.ledger import Ledger
from rerank_cli.jobs.pipeline import stream
from rerank_cli.jobs.sample import InputSample, take_pairs, take_sample
from rerank_cli.jobs.scoring import in_this_process
from rerank_cli.jobs.signals import Stop, listening
from rerank_cli.jobs.stages import pair_texts
from rerank_cli.jobs.tally import Tally
from rerank_cli.jobs.trace import Trace
from rerank_cli.jobs.trials import Resizable, Trials, choose_texts, plan_trials, try_sizes
from rerank_cli.records import Request

if TYPE_CHECKING:
    from rerank_cli.engine.flops import Costs, Flops
    from rerank_cli.engine.machine import Machine
    from rerank_cli.engine.peak import Peak

_FIRST_PAIRS = 512
_MOST_PAIRS = 200_000
_FEWEST_PAIRS = 32
# Shares of the time asked for. The rest is for what cannot be planned: reading, tokenizing, rows of other sizes.
_PEAK, _FIRST_LOOK, _PASS, _TRIALS = 0.05, 0.05, 0.35, 0.35


class Measurable(Resizable, Protocol):
    """An open model that says what its rows cost."""

    def costs(self) -> Costs | None: ...


OpenModel = Callable[[ModelOptions], Measurable]


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure. `seconds` is the time for all after the model is loaded; by default the sample is as large."""

    model: ModelOptions
    input: InputOptions
    sample_pairs: int | None = None
    seconds: float = 60.0
    notify: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True, slots=True)
class Pass:
    """The sample's way through the pipeline, in chunks of `chunk_pairs`.

    `tokens` are those of all pairs, `computed` those worked out with padding, `real` the same without; `texts` are
    distinct ones of those `given`. `flops` is None where operations are not counted. `pace` has seconds and tokens of
    each part, waiting included.
    """

    times: Times
    chunk_pairs: int
    pairs: int
    tokens: int
    truncated: int
    duplicates: int
    given: int
    texts: int
    rows: int
    real: int
    computed: int
    out_of_memory: int
    flops: Flops | None
    pace: Sequence[tuple[float, int]]

    @property
    def padding(self) -> float:
        return 1 - self.real / self.computed if self.computed else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found. Seconds: `load`, and `first_score` from the beginning of the command's work."""

    machine: Machine
    model: ModelFacts
    sample: InputSample
    load: float
    first_score: float
    peak: Peak
    passed: Pass
    limit: Limit
    trials: Trials
    estimate: Estimate | None

    @property
    def mfu(self) -> float | None:
        """Operations worked out a second of the device's work, as a share of its matrix-multiply rate."""
        return self._share(self.passed.flops.done) if self.passed.flops else None

    @property
    def mfu_nominal(self) -> float | None:
        """The same with the operations that the plain model would need: what is spared counts as done."""
        return self._share(self.passed.flops.nominal) if self.passed.flops else None

    def _share(self, operations: int) -> float:
        return operations / self.passed.times.device / self.peak.best


def bench(config: BenchConfig, open_model: OpenModel) -> Report:
    """Measure. Raises InputError where there is no pair to score, and what opening input and model raises."""
    begun = time.monotonic()
    with ExitStack() as stack:
        source = open_source(config.input)
        stack.callback(source.close)
        config.notify(source.description)
        records = iter(source)
        first = list(take_pairs(records, _FIRST_PAIRS))
        texts = pair_texts([record for record in first if isinstance(record, Request)]).part(0, _FIRST_PAIRS)
        if not len(texts):
            raise InputError(f"{config.input.paths[0]}: has no pair to score. Fix: rerank check says why")
        loading = time.monotonic()
        session = open_model(config.model)
        loaded = time.monotonic()
        session.score(session.prepare(texts.part(0, 1)))
        scored = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="rerank-bench-"))
        clear = partial(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(clear)
        stop = Stop()
        stack.enter_context(listening(stop, lambda _: None, lambda: None, clear))
        device = _Device(session)
        config.notify(f"measuring the matrix-multiply rate of {device.machine.name}")
        before = device.peak(_PEAK * config.seconds)
        pairs = config.sample_pairs or _fitting(session, texts, config.seconds)
        sample = take_sample(
            source, itertools.chain(first, records), config.input, pairs, patience=_FIRST_LOOK * config.seconds
        )
        config.notify(f"scoring a sample of {sample.pairs:,} pairs")
        passed = run_sample(session, sample, folder, stop)
        trials = _trials(session, sample, passed, config, device)
        return Report(
            machine=device.machine,
            model=session.facts,
            sample=sample,
            load=loaded - loading,
            first_score=scored - begun,
            peak=device.peak_around(before, device.peak(_PEAK * config.seconds)),
            passed=passed,
            limit=limit_of(passed.times, session.facts.device),
            trials=trials,
            estimate=_estimate(sample, passed),
        )


class _Device:
    """What there is to measure of a session's device beside its model; torch is imported by now."""

    def __init__(self, session: Session) -> None:
        import torch

        from rerank_cli.engine.device import DTYPES
        from rerank_cli.engine.machine import machine_of

        self.device = torch.device(session.facts.device)
        self._dtype = DTYPES[session.facts.dtype]
        self.machine = machine_of(self.device)

    def peak(self, seconds: float) -> float:
        from rerank_cli.engine.peak import matmul_peak

        return matmul_peak(self.device, self._dtype, seconds=seconds)

    def peak_around(self, before: float, after: float) -> Peak:
        from rerank_cli.engine.peak import Peak

        return Peak(before, after)

    def row_sizes(self, default: int) -> Sequence[int]:
        from rerank_cli.engine.machine import row_sizes

        return row_sizes(self.device, default)

    def is_crowded(self) -> bool:
        from rerank_cli.engine.machine import is_crowded

        return is_crowded(self.device)


def _fitting(session: Session, texts: PairTexts, seconds: float) -> int:
    """Pairs that a pass may have, by the pace of a first look at more and more of them, which also warms up."""
    count, pace = min(8, len(texts)), 0.0
    until = time.monotonic() + _FIRST_LOOK * seconds
    while time.monotonic() < until:
        begun = time.monotonic()
        session.score(session.prepare(texts.part(0, count)))
        pace = max(pace, count / (time.monotonic() - begun))
        if count == len(texts):
            break
        count = min(2 * count, len(texts))
    return max(_FEWEST_PAIRS, min(_MOST_PAIRS, int(pace * _PASS * seconds)))


class _Probe:
    """A session that notes what goes through it, and when."""

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


def run_sample(session: Measurable, sample: InputSample, folder: Path, stop: Callable[[], bool] = never) -> Pass:
    """Read, tokenize, score and write the sample as a run would, and note who waits for whom."""
    probe, tally, before = _Probe(session), Tally(), replace(session.work)
    chunk_pairs = min(session.sizes.chunk_pairs, max(32, sample.pairs // 8))
    output = OutputOptions(str(folder / "sample.jsonl"), OutputFormat.API, AnswerOptions(session.facts.name))
    sink = open_sink(output, columns=None, shape=sample.shape)
    ledger = Ledger(sink, None, tally, lambda _: None, None, OnError.SKIP)
    journal = Journal(None, {}, lambda: 0)
    records = guarded(sample.read(), OnError.SKIP, None, tally)
    begun = time.perf_counter()
    try:
        scoring = partial(in_this_process, probe, journal, tally)
        stream(cut(records, chunk_pairs, lambda: 0, Trace()), chunk_pairs, scoring, ledger, journal, tally, stop)
    finally:
        sink.abandon()
    seconds, work, spans = tally.seconds, session.work, [span for span in probe.spans if span[2]]
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
    return Pass(
        times=times,
        chunk_pairs=chunk_pairs,
        pairs=tally.pairs,
        tokens=tally.tokens,
        truncated=tally.truncated,
        duplicates=tally.duplicates,
        given=tally.records - tally.rejected + tally.pairs,
        texts=probe.texts,
        rows=work.rows - before.rows,
        real=work.tokens - before.tokens,
        computed=work.computed - before.computed,
        out_of_memory=work.out_of_memory - before.out_of_memory,
        flops=_operations(session.costs(), probe.rows),
        pace=_pace(spans),
    )


def _pace(spans: Sequence[tuple[float, float, int]]) -> Sequence[tuple[float, int]]:
    """Seconds from the end of the part before to the end of each, and its tokens."""
    ends = [spans[0][0], *(end for _, end, _ in spans)]
    return [(end - before, tokens) for before, (_, end, tokens) in zip(ends, spans, strict=False)]


def _operations(costs: Costs | None, rows: Iterable[PlannedRow]) -> Flops | None:
    if costs is None:
        return None
    first, *others = [costs.of(row.row) for row in rows]
    return sum(others, start=first)


def _trials(session: Measurable, sample: InputSample, passed: Pass, config: BenchConfig, device: _Device) -> Trials:
    default = session.facts.batch_tokens
    pace = passed.tokens / passed.times.device
    plan = plan_trials(device.row_sizes(default), default, pace, _TRIALS * config.seconds)
    if plan is None:
        return Trials(None)
    config.notify(f"trying rows of {', '.join(f'{size:,}' for size in plan.sizes)} tokens")
    requests = [record for record in sample.read() if isinstance(record, Request)]
    texts = choose_texts(requests, max(1, plan.tokens * passed.pairs // passed.tokens))
    return try_sizes(session, texts, plan, default, device.is_crowded)


def _estimate(sample: InputSample, passed: Pass) -> Estimate | None:
    if not sample.total_bytes:
        return None
    measured = sample.measured
    return estimate(
        total_bytes=sample.total_bytes,
        text=[(stretch.bytes, stretch.all_characters) for stretch in measured],
        characters=sample.characters,
        pairs=passed.pairs,
        tokens=passed.tokens,
        pace=passed.pace,
        complete=len(measured) < 3 and measured[-1].ended,
    )
