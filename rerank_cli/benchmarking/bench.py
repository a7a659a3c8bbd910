"""Measures how fast this machine scores a file: runs a sample through the real pipeline and finds what limits it.

Measures the pace, the share of the device's matrix-multiply rate, which stage waits for which, and other row sizes;
estimates the time for the whole input. The sample's output goes to a temporary folder, which is removed.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_cli.benchmarking.analysis import Estimate, Limit, estimate, limit_of
from rerank_cli.benchmarking.input_sample import InputSample, take_pairs, take_sample
from rerank_cli.benchmarking.precisions import Precisions, compare
from rerank_cli.benchmarking.row_size_search import Trials, choose_texts, plan_trials, try_sizes
from rerank_cli.benchmarking.sample_run import BenchSession, SampleRun, run_sample
from rerank_cli.engine.contract import ModelFacts, Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats import InputOptions, input_files, open_source
from rerank_cli.records import Request
from rerank_cli.run.signals import Stop, listening
from rerank_cli.run.stages import pair_texts

if TYPE_CHECKING:
    import torch

    from rerank_cli.engine.profiling.machine import Machine
    from rerank_cli.engine.profiling.peak import Peak

_FIRST_PAIRS = 512
_MOST_PAIRS = 200_000
_FEWEST_PAIRS = 32
# Shares of the requested time. The rest is for reading, tokenizing and rows of other sizes, which cannot be planned.
_PEAK, _FIRST_LOOK, _PASS, _TRIALS = 0.05, 0.05, 0.35, 0.35


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure. `seconds` is the time after loading the model; it sets the sample's size by default.

    `dtypes` are names of `precisions.WAYS` to compare, instead of row sizes; fp32 is the first.
    """

    model: ModelOptions
    input: InputOptions
    sample_pairs: int | None = None
    seconds: float = 60.0
    dtypes: tuple[str, ...] = ()
    notify: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True, slots=True)
class Report:
    """All results. `load` is in seconds, and so is `first_score`, from the start of the command."""

    machine: Machine
    model: ModelFacts
    sample: InputSample
    load: float
    first_score: float
    peak: Peak
    passed: SampleRun
    limit: Limit
    trials: Trials
    estimate: Estimate | None
    precisions: Precisions | None = None

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization: operations done per second of device time, as a share of the matmul peak."""
        return self._share(self.passed.flops.done) if self.passed.flops else None

    @property
    def mfu_nominal(self) -> float | None:
        """The same with the operations of the plain model, so that skipped work counts as done."""
        return self._share(self.passed.flops.nominal) if self.passed.flops else None

    @property
    def cpu_share(self) -> float | None:
        """CPU time as a share of the threads' time, None on a GPU; low if others use the machine, or the CPU waits."""
        if not self.model.device.startswith("cpu"):
            return None
        threads = min(self.machine.threads, self.machine.cores)
        return min(1.0, self.passed.cpu / (self.passed.times.wall * threads))

    def _share(self, operations: int) -> float:
        return operations / self.passed.times.device / self.peak.best


def bench(config: BenchConfig, open_model: Callable[[ModelOptions], BenchSession]) -> Report:
    """Measure. Raises InputError for an input without pairs, and the errors of opening input and model."""
    begun = time.monotonic()
    with ExitStack() as stack:
        source = open_source(config.input)
        stack.callback(source.close)
        config.notify(source.description)
        records = iter(source)
        first = list(take_pairs(records, _FIRST_PAIRS))
        texts = pair_texts([record for record in first if isinstance(record, Request)]).part(0, _FIRST_PAIRS)
        if not len(texts):
            raise InputError(f"{input_files(config.input)[0]}: no pair to score. Fix: rerank check lists the reasons")
        loading = time.monotonic()
        session = open_model(config.model)
        loaded = time.monotonic()
        if config.dtypes and session.facts.device != "cpu":
            where = f"--dtypes compares on a CPU, this runs on {session.facts.device}"
            raise UsageError(f"{where}. Fix: --device cpu, or --dtype with one bench each")
        session.score(session.prepare(texts.part(0, 1)))
        scored = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="rerank-bench-"))
        clear = partial(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(clear)
        stop = Stop()
        stack.enter_context(listening(stop, lambda _: None, lambda: None, clear))

        import torch  # open_model has imported it already, after it has found the model

        from rerank_cli.engine.profiling.machine import machine_of
        from rerank_cli.engine.profiling.peak import Peak, matmul_peak, precision_of

        device, facts = torch.device(session.facts.device), session.facts
        precision = precision_of(facts)
        measure_peak = partial(matmul_peak, device, precision, seconds=_PEAK * config.seconds)
        machine = machine_of(device)
        config.notify(f"measuring the matrix-multiply rate of {machine.name}")
        before = measure_peak()
        pairs = config.sample_pairs or _fitting(session, texts, config.seconds)
        sample = take_sample(
            source, itertools.chain(first, records), config.input, pairs, patience=_FIRST_LOOK * config.seconds
        )
        config.notify(f"scoring a sample of {sample.pairs:,} pairs")
        passed = run_sample(session, sample, folder, stop)
        precisions = _precisions(session, sample, config, open_model) if config.dtypes else None
        trials = _trials(session, sample, passed, config, device)
        return Report(
            machine=machine,
            model=facts,
            sample=sample,
            load=loaded - loading,
            first_score=scored - begun,
            peak=Peak(before, measure_peak(), precision),
            passed=passed,
            limit=limit_of(passed.times, facts.device),
            trials=trials,
            estimate=_estimate(sample, passed),
            precisions=precisions,
        )


def _fitting(session: Session, texts: PairTexts, seconds: float) -> int:
    """Pairs that a pass has time for, by the pace of more and more pairs, which also warms up the device."""
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


def _trials(
    session: BenchSession, sample: InputSample, passed: SampleRun, config: BenchConfig, device: torch.device
) -> Trials:
    from rerank_cli.engine.profiling.machine import is_crowded, row_sizes

    if config.dtypes:
        return Trials(None, "the time went to --dtypes")
    if session.facts.compiled:
        return Trials(None, "rows of a compiled model have a fixed size")
    if session.facts.listwise:
        return Trials(None, "a row is a whole list")
    default, pace = session.facts.batch_tokens, passed.tokens / passed.times.device
    plan = plan_trials(row_sizes(device, default), default, pace, _TRIALS * config.seconds, session.least_rows)
    if plan is None:
        return Trials(None, "the device is too slow for this time. Fix: a larger --seconds")
    config.notify(f"trying rows of {', '.join(f'{size:,}' for size in plan.sizes)} tokens")
    requests = [record for record in sample.read() if isinstance(record, Request)]
    texts = choose_texts(requests, max(1, plan.tokens * passed.pairs // passed.tokens))
    return try_sizes(session, texts, plan, default, partial(is_crowded, device))


def _precisions(
    session: Session, sample: InputSample, config: BenchConfig, open_model: Callable[[ModelOptions], BenchSession]
) -> Precisions:
    from rerank_cli.engine.spare_memory import spare_memory

    config.notify(f"comparing {', '.join(config.dtypes)}")
    requests = [record for record in sample.read() if isinstance(record, Request)]
    texts = partial(choose_texts, requests)
    return compare(session, config.model, config.dtypes, texts, _TRIALS * config.seconds, open_model, spare_memory)


def _estimate(sample: InputSample, passed: SampleRun) -> Estimate | None:
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
