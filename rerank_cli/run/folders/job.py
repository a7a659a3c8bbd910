"""A job with an output folder, as one process runs it: beside the others, with progress, metrics and a summary."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rerank_cli.choices import ProgressMode
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import RerankError
from rerank_cli.run.checks import check
from rerank_cli.run.figures.metrics import MetricsFile
from rerank_cli.run.figures.progress import say, showing
from rerank_cli.run.folders.checks import check_folder
from rerank_cli.run.folders.figures import FolderSummary
from rerank_cli.run.folders.inputs import find_items
from rerank_cli.run.folders.models import SharedModels
from rerank_cli.run.folders.state import FolderState
from rerank_cli.run.folders.work import Work
from rerank_cli.run.job import announce
from rerank_cli.run.opening import OpenModel
from rerank_cli.run.options import RunConfig
from rerank_cli.run.scoring.dtype_advice import DtypeAdvice
from rerank_cli.run.signals import Stop, listening
from rerank_cli.run.summary import write_summary
from rerank_cli.run.work import RevisionOf
from rerank_cli.storage.files import writing
from rerank_cli.storage.lease import Worker


def run_folder(
    config: RunConfig,
    open_model: OpenModel,
    revision_of: RevisionOf,
    *,
    signals: bool = True,
    worker: Worker | None = None,
    advice: DtypeAdvice | None = None,
) -> tuple[FolderSummary, Stop]:
    """Do the files of a job until all are done, with any other processes that do the same. See `job.run`.

    Inputs that cannot be done do not stop the others; the error of the first is raised at the end.
    """
    check_folder(config)
    stop = Stop(config.max_duration)
    known: dict[ModelOptions, str] = {}

    def revision(options: ModelOptions) -> str:
        if options not in known:
            known[options] = revision_of(options)
        return known[options]

    state = FolderState(Path(os.path.realpath(config.output.path)))
    worker = worker or Worker(state.own)
    work = Work(config, revision, stop, state, worker, advice)
    metrics = MetricsFile(config.metrics, config.output.path, work.stats, config.notify) if config.metrics else None
    try:
        with ExitStack() as stack:
            if signals:
                report = lambda: say(work.stats, ProgressMode.PLAIN)  # noqa: E731
                stack.enter_context(listening(stop, announce, report, work.leave))
            stack.callback(state.leave, worker)
            work.items = find_items(config)
            anywhere = replace(config.output, path=os.devnull)
            check(replace(config, output=anywhere, errors=None, summary=None, metrics=None))
            with writing(config.output.path):
                state.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(worker.present())
            stack.enter_context(showing(work.stats, config.progress, config.progress_interval))
            if metrics:
                stack.enter_context(metrics.kept(config.progress_interval))
            work.models = stack.enter_context(SharedModels(open_model, config, state, work.stats))
            work.work()
    except RerankError as error:
        if metrics:
            metrics.end("failed")
        if config.summary:
            write_summary(work.summary(str(error)), config.summary)
        raise
    summary = work.summary()
    if metrics:
        metrics.end(summary.exit_reason)
    if config.summary and not summary.nothing_to_do:
        write_summary(summary, config.summary)
    return summary, stop
