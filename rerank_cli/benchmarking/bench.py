"""How fast this machine scores that file: a sample goes through the real pipeline, and is set against what limits it.

Measured are pace, the share of the device's own matrix-multiply rate, who waits for whom, and sizes of rows; estimated
is the time for the whole input. The output of the sample goes to a temporary folder and is removed.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rerank_cli.benchmarking.analysis import Estimate, Limit, estimate, limit_of
from rerank_cli.benchmarking.input_sample import InputSample, take_pairs, take_sample
from rerank_cli.benchmarking.row_size_search import Resizable, Trials, choose_texts, plan_trials, try_sizes
from rerank_cli.benchmarking.sample_run import Costed, SampleRun, run_sample
from rerank_cli.engine.contract import ModelFacts, Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.errors import InputError
from rerank_cli.formats import InputOptions, input_files, open_source
from rerank_cli.records import Request
from rerank_cli.run.signals import Stop, listening
from rerank_cli.run.stages import pair_texts

if TYPE_CHECKING:
    from rerank_cli.engine.profiling.machine import Machine
    from rerank_cli.engine.profiling.peak import Peak

_FIRST_PAIRS = 512
_MOST_PAIRS = 200_000
_FEWEST_PAIRS = 32
# Shares of the time asked for. The rest is for what cannot be planned: reading, tokenizing, rows of other sizes.
_PEAK, _FIRST_LOOK, _PASS, _TRIALS = 0.05, 0.05, 0.35, 0.35


class Measurable(Costed, Resizable, Protocol):
    """An open model of which all can be measured."""


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
class Report:
    """All that was found. Seconds: `load`, and `first_score` from the beginning of the command's work."""

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

    @property
    def mfu(self) -> float | None:
        """Operations worked out a second of the device's work, as a share of its matrix-multiply rate."""
        return self._share(self.passed.flops.done) if self.passed.flops else None

    @property
    def mfu_nominal(self) -> float | None:
        """The same with the operations that the plain model would need: what is spared counts as done."""
        return self._share(self.passed.flops.nominal) if self.passed.flops else None

    @property
    def cpu_share(self) -> float | None:
        """What the process got of the time of its threads; None where a CPU is not what scores.

        A run that is limited by the device gets all of it, unless others use the machine.
        """
        if not self.model.device.startswith("cpu"):
            return None
        threads = min(self.machine.threads, self.machine.cores)
        return min(1.0, self.passed.cpu / (self.passed.times.wall * threads))

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
            raise InputError(f"{input_files(config.input)[0]}: has no pair to score. Fix: rerank check says why")
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
        from rerank_cli.engine.profiling.machine import machine_of

        self.device = torch.device(session.facts.device)
        self._dtype = DTYPES[session.facts.dtype]
        self.machine = machine_of(self.device)

    def peak(self, seconds: float) -> float:
        from rerank_cli.engine.profiling.peak import matmul_peak

        return matmul_peak(self.device, self._dtype, seconds=seconds)

    def peak_around(self, before: float, after: float) -> Peak:
        from rerank_cli.engine.profiling.peak import Peak

        return Peak(before, after)

    def row_sizes(self, default: int) -> Sequence[int]:
        from rerank_cli.engine.profiling.machine import row_sizes

        return row_sizes(self.device, default)

    def is_crowded(self) -> bool:
        from rerank_cli.engine.profiling.machine import is_crowded

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


def _trials(
    session: Measurable, sample: InputSample, passed: SampleRun, config: BenchConfig, device: _Device
) -> Trials:
    default = session.facts.batch_tokens
    pace = passed.tokens / passed.times.device
    if session.facts.compiled:
        return Trials(None, "a compiled model has rows of one size")
    sizes, seconds = device.row_sizes(default), _TRIALS * config.seconds
    plan = plan_trials(sizes, default, pace, seconds, session.least_rows)
    if plan is None:
        return Trials(None, "too slow for the time. Fix: a larger --seconds")
    config.notify(f"trying rows of {', '.join(f'{size:,}' for size in plan.sizes)} tokens")
    requests = [record for record in sample.read() if isinstance(record, Request)]
    texts = choose_texts(requests, max(1, plan.tokens * passed.pairs // passed.tokens))
    return try_sizes(session, texts, plan, default, device.is_crowded)


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
