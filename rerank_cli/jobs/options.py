"""What a run is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from rerank_cli.engine.contract import ModelOptions
from rerank_cli.formats import InputOptions, OutputOptions
from rerank_cli.jobs.choices import OnError, ProgressMode, Resume


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything a run depends on. None takes the default of the device or the model."""

    model: ModelOptions
    input: InputOptions
    output: OutputOptions
    stdout: BinaryIO | None = None
    resume: Resume = Resume.AUTO
    top_n: int | None = None
    limit: int | None = None
    chunk_pairs: int | None = None
    on_error: OnError = OnError.FAIL
    errors: str | None = None
    max_errors: int | None = None
    progress: ProgressMode = ProgressMode.AUTO
    progress_interval: float = 30.0
    summary: str | None = None
    notify: Callable[[str], None] = field(default=lambda _: None)
