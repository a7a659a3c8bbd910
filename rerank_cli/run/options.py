"""The configuration of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from rerank_cli.choices import OnChanged, OnError, ProgressMode, Resume
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import UsageError
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.formats import InputOptions, OutputOptions
from rerank_cli.ranking import PLAIN, Fusion
from rerank_cli.run.shard import Shard
from rerank_cli.storage.paths import STREAM, is_special


@dataclass(frozen=True, slots=True)
class Cascade:
    """A small model keeps the best `keep` candidates of a request; the loss is measured on `sample`, None for a few."""

    model: ModelOptions
    keep: int
    sample: int | None = None

    @classmethod
    def parse(cls, text: str, large: ModelOptions, sample: int | None) -> Cascade:
        """`MODEL:KEEP`. The small model runs on the device of the large one, with its own lengths. UsageError."""
        name, _, keep = text.rpartition(":")
        if not name or not keep.isascii() or not keep.isdigit() or int(keep) < 1:
            raise UsageError(f"--cascade {text}: expected MODEL:KEEP, like mini:20")
        small = ModelOptions(name, device=large.device, dtype=large.dtype, threads=large.threads)
        return cls(small, int(keep), sample)

    @property
    def mark(self) -> str:
        """Its value in a fingerprint."""
        return f"{self.model.name}:{self.keep}"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything a run depends on. None selects the default of the device or the model; times are in seconds.

    `command` is the command line, for the record that a finished output carries. With `shard`, only that part of the
    input is processed.
    """

    model: ModelOptions
    input: InputOptions
    output: OutputOptions
    stdout: BinaryIO | None = None
    resume: Resume = Resume.AUTO
    on_changed: OnChanged = OnChanged.FAIL
    top_n: int | None = None
    fusion: Fusion = PLAIN
    qrels: QrelsOptions | None = None
    limit: int | None = None
    shard: Shard | None = None
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
    metrics: str | None = None
    notify: Callable[[str], None] = field(default=lambda _: None)
    command: str = ""

    def sharded(self, shard: Shard) -> RunConfig:
        """The run of one shard: its output and the files beside it have the shard's number in their names."""

        def named(path: str | None) -> str | None:
            return path if not path or path == STREAM or is_special(path) else shard.named(path)

        return replace(
            self,
            shard=replace(shard, errors=self.errors),
            output=replace(self.output, path=named(self.output.path) or ""),
            errors=named(self.errors),
            summary=named(self.summary),
            checkpoint=named(self.checkpoint),
            metrics=named(self.metrics),
        )

    @property
    def unsharded(self) -> RunConfig:
        """The run whose output the outputs of all shards make up; its files keep the names of this shard, but for
        `errors`.
        """
        return replace(self, shard=None, errors=self.shard.errors) if self.shard else self

    @property
    def same_command(self) -> str:
        """How a message names the command that continues this run."""
        return "the same command" + (" without --restart or --resume never" if self.resume is Resume.NEVER else "")

    @property
    def models(self) -> list[ModelOptions]:
        """All models of the run, the one that ranks first."""
        return [self.model, self.cascade.model] if self.cascade else [self.model]
