"""What a run is asked to do, and whether that makes sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from rerank_cli.choices import OnError, ProgressMode, Resume
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import UsageError
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.formats import InputOptions, OutputOptions
from rerank_cli.ranking import PLAIN, Fusion


@dataclass(frozen=True, slots=True)
class Cascade:
    """Which model keeps how many candidates of a request; `sample` requests are looked into, None for a few."""

    model: ModelOptions
    keep: int
    sample: int | None = None

    @classmethod
    def parse(cls, text: str, large: ModelOptions, sample: int | None) -> Cascade:
        """`MODEL:KEEP`. The small model runs where the large one does, with its own lengths."""
        name, _, keep = text.rpartition(":")
        if not name or not keep.isascii() or not keep.isdigit() or int(keep) < 1:
            raise UsageError(f"--cascade {text}: expected MODEL:KEEP, like mini:20")
        small = ModelOptions(name, device=large.device, dtype=large.dtype, threads=large.threads)
        return cls(small, int(keep), sample)

    @property
    def mark(self) -> str:
        """For a fingerprint."""
        return f"{self.model.name}:{self.keep}"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything a run depends on. None takes the default of the device or the model; times are seconds."""

    model: ModelOptions
    input: InputOptions
    output: OutputOptions
    stdout: BinaryIO | None = None
    resume: Resume = Resume.AUTO
    top_n: int | None = None
    fusion: Fusion = PLAIN
    judges: QrelsOptions | None = None
    limit: int | None = None
    chunk_pairs: int | None = None
    commit_interval: float | None = None
    checkpoint: str | None = None
    cache: str | None = None
    cascade: Cascade | None = None
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

    @property
    def models(self) -> list[ModelOptions]:
        """All that take part, the one that ranks first."""
        return [self.model, self.cascade.model] if self.cascade else [self.model]
