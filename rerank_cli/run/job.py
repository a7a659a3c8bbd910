"""A complete run: open input and output, load the model, stream chunks through it, commit them, publish the output.

The same run started again continues after the last commit and writes the same bytes.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from rerank_cli.choices import OnChanged, ProgressMode, Resume
from rerank_cli.errors import ChangedError, RerankError
from rerank_cli.run.checks import check
from rerank_cli.run.figures.progress import say
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.opening import OpenModel
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.scoring.dtype_advice import DtypeAdvice
from rerank_cli.run.signals import Stop, listening
from rerank_cli.run.summary import Summary, write_summary
from rerank_cli.run.work import Job, RevisionOf, Share
from rerank_cli.storage.paths import STREAM


def run(
    config: RunConfig,
    open_model: OpenModel,
    revision_of: RevisionOf | None = None,
    *,
    signals: bool = True,
    advice: DtypeAdvice | None = None,
) -> tuple[Summary, Stop]:
    """Run the job, or what an earlier run of the same command left of it.

    `revision_of` gives a model's revision without loading it, to recognise an output that is complete already. With
    `signals` the run handles signals, and the caller ends the process by `Stop.signal` if it is set. `advice` is for a
    run whose dtype nobody chose. Raises RerankError subclasses with a message of one line, and BrokenPipeError if the
    reader of stdout has closed it.
    """
    stop = Stop(config.max_duration)
    return _run(config, open_model, revision_of, stop, signals=signals, advice=advice), stop


def run_part(
    config: RunConfig,
    open_model: OpenModel,
    revision_of: RevisionOf,
    stop: Stop,
    stats: RunStatistics,
    share: Share,
    advice: DtypeAdvice | None = None,
) -> Summary:
    """Run one of several outputs: counts in `stats`, sets no signal handlers, and leaves the models open."""
    return _run(config, open_model, revision_of, stop, stats, share, signals=False, advice=advice)


def _run(
    config: RunConfig,
    open_model: OpenModel,
    revision_of: RevisionOf | None,
    stop: Stop,
    stats: RunStatistics | None = None,
    share: Share | None = None,
    *,
    signals: bool,
    advice: DtypeAdvice | None,
) -> Summary:
    check(config)
    state = OutputState.of(config.output.path, config.checkpoint, config.errors)
    job = Job(config, open_model, revision_of, stop, state, stats or RunStatistics(), share, advice)
    try:
        with ExitStack() as stack:
            if signals:
                report = partial(say, job.stats, ProgressMode.PLAIN)
                stack.enter_context(listening(stop, announce, report, job.remove_lock))
            job.lock(stack)
            job.work(stack)
    except ChangedError as error:
        if config.on_changed is not OnChanged.RESTART or STREAM in config.input.paths:
            raise
        left = job.checkpoint.records if job.checkpoint else 0
        config.notify(f"{error.what}; starting over, the unfinished output with {left:,} records is discarded")
        again = replace(config, resume=Resume.NEVER)
        job.stats.resume_from({})
        shared = job.stats if share else None
        return _run(again, open_model, revision_of, stop, shared, share, signals=signals, advice=advice)
    except RerankError as error:
        if share is None and job.stats.chunks and job.state.checkpoint and "--restart" not in str(error):
            kept = f"{job.stats.records:,} records are kept"
            config.notify(f"{kept}; fix the problem and run {config.same_command} to resume")
        if job.metrics and job.locked:
            job.metrics.end("failed")
        if config.summary:
            write_summary(Summary(job.stats, failure=str(error)), config.summary)
        raise
    summary = job.summary()
    if job.metrics and not summary.nothing_to_do:
        job.metrics.end(summary.exit_reason)
    if config.summary and not summary.nothing_to_do:
        write_summary(summary, config.summary)
    return summary


def announce(name: str) -> None:
    os.write(2, f"rerank: {name}, finishing the current row (again to quit at once)\n".encode())
