"""What a run is asked to do, and whether that makes sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rerank_cli.engine.contract import ModelOptions
from rerank_cli.errors import RefusedError, UsageError
from rerank_cli.formats import (
    InputOptions,
    OutputFormat,
    OutputOptions,
    check_output,
    check_side_file,
    final_path,
    input_files,
)
from rerank_cli.jobs.checkpoint import is_ours
from rerank_cli.jobs.choices import OnError, ProgressMode, Resume


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything a run depends on. None takes the default of the device or the model; times are seconds."""

    model: ModelOptions
    input: InputOptions
    output: OutputOptions
    stdout: BinaryIO | None = None
    resume: Resume = Resume.AUTO
    top_n: int | None = None
    limit: int | None = None
    chunk_pairs: int | None = None
    commit_interval: float | None = None
    checkpoint: str | None = None
    max_duration: float | None = None
    verify: int | None = None
    verify_tolerance: float | None = None
    on_error: OnError = OnError.FAIL
    errors: str | None = None
    max_errors: int | None = None
    progress: ProgressMode = ProgressMode.AUTO
    progress_interval: float = 30.0
    summary: str | None = None
    notify: Callable[[str], None] = field(default=lambda _: None)


def check(config: RunConfig) -> None:
    """Raise what can be told before anything is opened: flags that do not go together, places that are taken."""
    if config.model.cutting.stride is not None and not config.model.cutting.in_passages:
        raise UsageError("--stride needs --long-documents max, first or mean-top3: nothing is read in passages else")
    if config.verify_tolerance is not None and config.verify is None:
        raise UsageError("--verify-tolerance needs --verify N")
    if config.output.format is OutputFormat.TREC and config.output.answers.truncated:
        raise UsageError("--mark-truncated: a TREC run has no place for marks. Fix: --format api or pairs")
    inputs = input_files(config.input)
    check_output(config.output, inputs, config.stdout)
    if config.errors is not None and config.on_error is OnError.FAIL:
        raise UsageError("--errors needs --on-error skip or emit: with fail the first bad record ends the run")
    named = {"--errors": config.errors, "--summary": config.summary, "--checkpoint": config.checkpoint}
    taken: dict[Path, str] = {}
    for flag, path in named.items():
        if path is None:
            continue
        check_side_file(path, flag, config.output, inputs)
        other = taken.setdefault(final_path(path), flag)
        if other != flag:
            raise UsageError(f"{other} and {flag} name the same file. Fix: another {flag}")
    if config.checkpoint and not is_ours(Path(config.checkpoint)):
        raise RefusedError(f"{config.checkpoint}: is no checkpoint of ours. Fix: another --checkpoint")
