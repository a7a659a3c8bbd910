"""Which options of a run work with an output folder, and the configuration of the run of one file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rerank_cli.choices import OnError, ProgressMode, Resume
from rerank_cli.errors import OutputError, UsageError
from rerank_cli.formats import check_side_file
from rerank_cli.run.figures.metrics import check_metrics
from rerank_cli.run.folders.inputs import Item
from rerank_cli.run.options import RunConfig
from rerank_cli.storage.paths import is_special


def check_folder(config: RunConfig) -> None:
    """Raise UsageError or OutputError for options that do not work with an output folder, before anything is read."""
    out = config.output.path
    if config.checkpoint is not None:
        raise UsageError("--checkpoint: in an output folder each file has its own beside it. Fix: remove --checkpoint")
    if config.qrels is not None:
        raise UsageError(f"--qrels measures one output (got the folder {out}). Fix: rerank eval on each output")
    if config.input.by_id and config.input.by_id.answer_unlisted:
        what = "for each file of --run the queries that it does not name would be answered too"
        raise UsageError(f"-o {out}: {what}. Fix: --skip-unlisted")
    if config.errors is not None:
        if config.on_error is OnError.FAIL:
            raise UsageError("--errors needs --on-error skip or emit: with fail the first bad record ends a file's run")
        if not (config.errors.endswith("/") or Path(config.errors).is_dir()):
            fix = f"--errors {config.errors.removesuffix('.jsonl')}/"
            raise UsageError(f"--errors {config.errors}: with an output folder this is a folder too. Fix: {fix}")
        if os.path.realpath(config.errors) == os.path.realpath(out):
            raise UsageError("--errors and -o name the same folder. Fix: another --errors")
    for flag, path in (("--summary", config.summary), ("--metrics", config.metrics)):
        if path is not None:
            check_side_file(path, flag, replace(config.output, path=_inside(out)), config.input.paths)
    if config.metrics is not None:
        check_metrics()
        if is_special(config.metrics):
            raise UsageError(f"--metrics {config.metrics}: not a regular file, which is replaced as a whole")
    if Path(out).exists() and not Path(out).is_dir():
        raise OutputError(f"{out}: is not a folder. Fix: -o without the slash at its end")


def run_config(config: RunConfig, item: Item, notify: Callable[[str], None]) -> RunConfig:
    """The configuration of the run of one file."""
    errors = None
    if config.errors is not None:
        errors = str(Path(config.errors) / f"{item.output}.jsonl")
    return replace(
        config,
        input=replace(config.input, paths=(item.input,)),
        output=replace(config.output, path=str(Path(config.output.path) / item.output)),
        resume=Resume.AUTO,
        max_duration=None,
        errors=errors,
        progress=ProgressMode.OFF,
        summary=None,
        metrics=None,
        notify=notify,
    )


def _inside(out: str) -> str:
    """The path of an output that none has, so that files beside the outputs are checked as for a single one."""
    return str(Path(out) / "_")
