"""What is refused before a training run begins: places, teachers whose scores nobody reads, runs without an end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rerank_cli.choices import LayerLoss, Loss
from rerank_cli.display import shown
from rerank_cli.errors import RefusedError, UsageError
from rerank_cli.storage.paths import STREAM, final_path, is_special, refuse_if_input
from rerank_cli.training.data.open import OpenedData
from rerank_cli.training.options import TrainConfig


def refuse_places(config: TrainConfig, result: Path, read: Sequence[str]) -> None:
    """Raise RefusedError if a file to write is one of those that are read, or the result would replace one."""
    written = {"--log": config.log, "--errors": config.data.bad.errors, "--teacher-scores": config.teacher_scores}
    for flag, path in written.items():
        if path:
            refuse_if_input(path, read, f"another {flag}")
    if config.log and (config.log == STREAM or is_special(config.log)):
        raise UsageError(f"--log {config.log}: is a device or a pipe, and the log is read again. Fix: name a file")
    for path in (*read, *filter(None, (config.teacher, *written.values()))):
        place = final_path(path)
        if result in (place, *place.parents):
            what = f"the result would replace {shown(path, 300)}"
            raise RefusedError(f"{shown(config.output, 300)}: {what}. Fix: another -o")


def check_teacher(config: TrainConfig) -> None:
    """Raise UsageError if nothing reads the scores of the teacher."""
    kind, layers = config.loss.kind, config.loss.layers
    reads = kind not in (Loss.CE, Loss.BCE, Loss.LAMBDARANK) or layers in (LayerLoss.FINAL, LayerLoss.FIXED)
    if config.teacher and kind and not reads:
        expected = "expected distil, margin-mse, mse or listnet"
        raise UsageError(f"--teacher: --loss {kind.value} reads no scores ({expected}). Fix: leave one of them out")


def check_taught(config: TrainConfig, data: OpenedData) -> None:
    """Raise UsageError if scores of the teacher would not be used, before they are computed."""
    groups, kind = data.groups, config.loss.kind
    if kind in (Loss.MSE, Loss.LISTNET):
        if labels := groups.counts.with_labels:
            what = (
                f"{labels:,} of {len(groups):,} groups have labels or scores, which --loss {kind.value} reads instead"
            )
            raise UsageError(f"--teacher: {what}. Fix: leave --teacher out, or --loss distil")
    elif lacking := groups.counts.without_negatives:
        what = f"{lacking:,} of {len(groups):,} groups have no negatives, and passages of other queries have no scores"
        raise UsageError(f"--teacher: {what}. Fix: rerank mine")


def steps_of(config: TrainConfig, steps_per_epoch: int) -> int:
    """The number of steps. Raises UsageError if there are none, or no end."""
    if not math.isfinite(config.epochs):
        raise UsageError(f"--epochs {config.epochs:g}: expected a finite number")
    found = math.ceil(config.epochs * steps_per_epoch)
    found = found if config.max_steps is None else min(found, config.max_steps)
    if found < 1:
        raise UsageError(f"--epochs {config.epochs:g}: there is no step to compute (expected more than 0)")
    return found
