"""A whole training run: read the data, load the model, compute steps, evaluate, save, publish the result.

A checkpoint has everything that the next step depends on, so the same command started again computes the same weights.
The result's folder appears only once everything in it is written.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from rerank_cli.choices import OnChanged, Resume
from rerank_cli.errors import ChangedError, RerankError
from rerank_cli.run.signals import Stop, listening
from rerank_cli.training.launcher import wants_bf16
from rerank_cli.training.options import TrainConfig
from rerank_cli.training.processes import Processes, joined
from rerank_cli.training.run.checkpoints import WorkFolder
from rerank_cli.training.run.summary import TrainSummary
from rerank_cli.training.run.work import Job


def train(config: TrainConfig, *, signals: bool = True) -> tuple[TrainSummary, Stop]:
    """Train, or go on where an earlier run of the same command stopped.

    With `signals` the run handles signals, and the caller ends the process by `Stop.signal` if it is set. Raises
    RerankError subclasses with a message of one line.
    """
    with joined(config.model.device) as processes:
        return _train(_placed(config, processes), processes, signals)


def _placed(config: TrainConfig, processes: Processes) -> TrainConfig:
    """The configuration with what `accelerate launch` asks for. UsageError.

    Each of several processes has its own device, and only the first has messages.
    """
    if wants_bf16(os.environ, config.model.dtype) and not (config.model.device in ("auto", "cuda") and _has_cuda()):
        config = replace(config, model=replace(config.model, dtype="bf16"))
    if processes.count == 1:
        return config
    if processes.shards:
        config = replace(config, recompute=config.recompute or processes.shards.recompute)
    notify = config.notify if processes.leads else lambda _: None
    data = config.data if processes.leads else replace(config.data, bad=replace(config.data.bad, errors=None))
    model, device = config.model, config.model.device
    if device == "cuda" or (device == "auto" and _has_cuda()):
        model = replace(model, device=f"cuda:{processes.local}")
    return replace(config, notify=notify, data=data, model=model)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _train(config: TrainConfig, processes: Processes, signals: bool) -> tuple[TrainSummary, Stop]:
    stop = Stop(config.max_duration)
    job = Job(config, stop, WorkFolder(config.output), processes)
    try:
        with ExitStack() as stack:
            if signals:
                stack.enter_context(listening(stop, job.announce, job.say_progress, job.remove_lock))
            if processes.leads:
                job.lock(stack)
            job.work(stack)
    except ChangedError as error:
        if config.on_changed is not OnChanged.RESTART:
            raise
        done = job.state.steps_done if job.state else 0
        config.notify(f"{error.what}; starting over, the unfinished run with {done:,} steps is discarded")
        return _train(replace(config, resume=Resume.NEVER), processes, signals)
    except RerankError as error:
        saved = job.training.saved if job.training else 0
        if saved and "--restart" not in str(error):
            kept = f"the checkpoint of step {saved:,} is kept"
            config.notify(f"{kept}; fix the problem and run {config.same_command} to go on")
        raise
    return job.summary, stop
