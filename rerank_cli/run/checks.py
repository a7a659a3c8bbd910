"""Validation of a run's options before anything is opened: flags that exclude each other, paths that conflict."""

from __future__ import annotations

from pathlib import Path

from rerank_cli.choices import OnError
from rerank_cli.errors import RefusedError, UsageError
from rerank_cli.formats import check_output, check_side_file, input_files
from rerank_cli.formats.writing.containers import is_continuous
from rerank_cli.ranking import PLAIN
from rerank_cli.records import Shape
from rerank_cli.run.figures.metrics import check_metrics
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery import remote_checkpoint
from rerank_cli.run.recovery.checkpoint import is_ours
from rerank_cli.storage.paths import STREAM, final_path, is_special, partial_of
from rerank_cli.storage.remote import is_remote


def check(config: RunConfig) -> None:
    """Raise UsageError, RefusedError or OutputError for flags and paths that cannot work, without reading any input."""
    if config.verify_tolerance is not None and config.verify is None:
        raise UsageError("--verify-tolerance needs --verify N")
    output, cascade = config.output, config.cascade
    if config.shard:
        _check_shard(config)
    if output.format.is_run and output.answers.truncated:
        raise UsageError(f"--mark-truncated: --format {output.format} cannot store marks. Fix: --format api or pairs")
    if output.format.is_run and output.answers.query:
        raise UsageError(f"--echo-query: --format {output.format} has no field for texts. Fix: --format api or pairs")
    if config.checkpoint and partial_of(output.path) is None and is_continuous(output.path, output.format):
        what = f"--format {output.format} is one JSON object" if output.format.is_one_object else f"-o {output.path}"
        raise UsageError(f"{what}: a stream of it cannot be resumed. Fix: -o with a regular file")
    if cascade and cascade.model.name == config.model.name:
        raise UsageError(f"--cascade {cascade.mark}: this is the main model itself. Fix: a smaller model")
    if cascade and config.top_n and config.top_n > cascade.keep:
        raise UsageError(f"--top-n {config.top_n}: --cascade keeps {cascade.keep}. Fix: --cascade with a larger KEEP")
    judgements = [config.qrels.path] if config.qrels else []
    if STREAM in judgements:
        raise UsageError("--qrels cannot be - (stdin carries the input). Fix: name a file")
    read = (*input_files(config.input), *judgements)
    check_output(output, read, config.stdout)
    if config.errors is not None and config.on_error is OnError.FAIL:
        raise UsageError("--errors needs --on-error skip or emit: with fail the first bad record ends the run")
    named = {"--errors": config.errors, "--summary": config.summary, "--checkpoint": config.checkpoint}
    named |= {"--metrics": config.metrics}
    taken: dict[Path, str] = {}
    for flag, path in (named | {"--cache": config.cache}).items():
        if path is not None:
            check_side_file(path, flag, output, read, must_write=flag != "--cache")
            other = taken.setdefault(final_path(path), flag)
            if other != flag:
                raise UsageError(f"{other} and {flag} name the same file. Fix: another {flag}")
    if config.metrics is not None:
        check_metrics()
        if is_special(config.metrics):
            raise UsageError(f"--metrics {config.metrics}: not a regular file, which is replaced as a whole")
    if config.cache is not None and (not config.cache or is_special(config.cache) or Path(config.cache).is_dir()):
        raise UsageError(f"--cache {config.cache}: not a regular file (expected a path to a file, existing or new)")
    if config.checkpoint and not _may_replace(config.checkpoint):
        raise RefusedError(f"{config.checkpoint}: not a checkpoint of rerank. Fix: another --checkpoint")


def _check_shard(config: RunConfig) -> None:
    """Raise UsageError for what cannot be divided or named."""
    if config.output.path == STREAM or is_special(config.output.path):
        raise UsageError(f"--shard {config.shard}: the output gets a number in its name. Fix: -o with a regular file")
    if config.limit is not None:
        what = f"--shard {config.shard}: --limit counts records of the whole input, of which a shard reads a part"
        raise UsageError(f"{what}. Fix: leave --limit out")
    for path in input_files(config.input):
        if path == STREAM or is_special(path):
            name = "stdin" if path == STREAM else path
            raise UsageError(f"--shard {config.shard}: {name} can be read only once, and by one run. Fix: name a file")


def _may_replace(checkpoint: str) -> bool:
    return remote_checkpoint.is_ours(checkpoint) if is_remote(checkpoint) else is_ours(Path(checkpoint))


def check_shape(config: RunConfig, shape: Shape | None) -> None:
    """Raise UsageError for options that drop or reorder candidates if the records' answers keep the input order."""
    if shape is None or not shape.keeps_order:
        return
    if config.cascade:
        what = f"{shape.value} records are answered with all of them"
        raise UsageError(f"--cascade drops candidates, but {what}. Fix: remove --cascade")
    if shape is Shape.TRAIN and config.fusion != PLAIN:
        flag = "--fuse" if config.fusion.kind else "--min-score"
        raise UsageError(f"{flag} does not apply to teacher scores of train records. Fix: remove {flag}")
