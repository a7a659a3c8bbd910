"""Checks of a run's options before anything is opened: flags that exclude each other, paths that are taken."""

from __future__ import annotations

from pathlib import Path

from rerank_cli.choices import OnError
from rerank_cli.errors import RefusedError, UsageError
from rerank_cli.formats import check_output, check_side_file, input_files
from rerank_cli.ranking import PLAIN
from rerank_cli.records import Shape
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.checkpoint import is_ours
from rerank_cli.storage.paths import STREAM, final_path, is_special, partial_of


def check(config: RunConfig) -> None:
    """Raise what can be told before anything is opened: flags that do not go together, places that are taken."""
    if config.verify_tolerance is not None and config.verify is None:
        raise UsageError("--verify-tolerance needs --verify N")
    output = config.output
    if output.format.is_run and output.answers.truncated:
        raise UsageError(f"--mark-truncated: --format {output.format} has no place for marks. Fix: api or pairs")
    if output.format.is_one_object and config.checkpoint and partial_of(output.path) is None:
        raise UsageError(f"--format {output.format} is one object: a stream of it cannot go on later. Fix: -o FILE")
    if config.cascade and config.cascade.model.name == config.model.name:
        raise UsageError(f"--cascade {config.cascade.mark}: is the model itself. Fix: a smaller one")
    if config.cascade and config.top_n and config.top_n > config.cascade.keep:
        raise UsageError(f"--top-n {config.top_n}: --cascade keeps {config.cascade.keep}. Fix: --cascade MODEL:KEEP")
    judgements = [config.judges.qrels] if config.judges else []
    if STREAM in judgements:
        raise UsageError("--qrels cannot be - (stdin carries the input). Fix: name a file")
    read = (*input_files(config.input), *judgements)
    check_output(output, read, config.stdout)
    if config.errors is not None and config.on_error is OnError.FAIL:
        raise UsageError("--errors needs --on-error skip or emit: with fail the first bad record ends the run")
    named = {"--errors": config.errors, "--summary": config.summary, "--checkpoint": config.checkpoint}
    named["--cache"] = config.cache
    taken: dict[Path, str] = {}
    for flag, path in named.items():
        if path is None:
            continue
        check_side_file(path, flag, output, read, must_write=flag != "--cache")
        other = taken.setdefault(final_path(path), flag)
        if other != flag:
            raise UsageError(f"{other} and {flag} name the same file. Fix: another {flag}")
    if config.cache is not None and (not config.cache or is_special(config.cache) or Path(config.cache).is_dir()):
        raise UsageError(f"--cache {config.cache}: is no file (expected one, or a name for one)")
    if config.checkpoint and not is_ours(Path(config.checkpoint)):
        raise RefusedError(f"{config.checkpoint}: is no checkpoint of ours. Fix: another --checkpoint")


def check_shape(config: RunConfig, shape: Shape | None) -> None:
    """Raise UsageError at what leaves candidates out, or orders them anew, where records are answered as they came."""
    if shape is None or not shape.keeps_order:
        return
    fix = f"{shape.value} records are answered whole. Fix: without it"
    if config.cascade:
        raise UsageError(f"--cascade leaves candidates out, but {fix}")
    if shape is Shape.TRAIN and config.fusion != PLAIN:
        flag = "--fuse" if config.fusion.kind else "--min-score"
        raise UsageError(f"{flag} has no place in the scores of a teacher: {fix}")
