"""Scores of a teacher for all groups, by a run that can be resumed, before the training that learns from them."""

from __future__ import annotations

import filecmp
import os
from dataclasses import replace
from pathlib import Path

import orjson

from rerank_cli.choices import OutputFormat, ProgressMode, Resume
from rerank_cli.display import shown
from rerank_cli.engine.lazy import start_session
from rerank_cli.engine.limits import find
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ChangedError
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.records import Shape
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig
from rerank_cli.storage.files import replace_file, writing
from rerank_cli.storage.paths import sync_folder
from rerank_cli.training.data.open import BadRecords, DataOptions
from rerank_cli.training.data.store import Groups
from rerank_cli.training.options import TrainConfig

_TOGETHER = 64  # groups whose texts are looked up at once


class TeacherFiles:
    """The file with the groups and their teacher scores, and what is beside it until the training is finished."""

    def __init__(self, config: TrainConfig, final: Path) -> None:
        self._kept = config.teacher_scores is not None
        self.scores = Path(config.teacher_scores or final.with_name(final.name + ".teacher.jsonl"))
        self.groups = self.scores.with_name(self.scores.name + ".groups")
        self.done = self.scores.with_name(self.scores.name + ".done")

    def remove_if_done(self) -> None:
        """Remove what a training left that was killed at its end."""
        if self.done.exists():
            self.remove()

    def remove(self) -> None:
        """Remove all but the scores, and these too unless a flag names their file."""
        for path in (self.groups, self.done, *(() if self._kept else (self.scores,))):
            path.unlink(missing_ok=True)


def taught(
    config: TrainConfig, teacher: str, groups: Groups, files: TeacherFiles, seconds: float | None
) -> DataOptions | None:
    """Score all groups with the teacher; returns the data with its scores.

    Prompts of the records are for the model that is trained: the teacher reads pairs as it does by default. A dtype
    that is given holds for both. None if `seconds` have passed before the end; the same command goes on. Raises
    RerankError like a run.
    """
    dtype = config.model.dtype
    model = ModelOptions(teacher, device=config.model.device, threads=config.model.threads, dtype=dtype)
    of_dtype = () if dtype == "auto" else (dtype,)
    mark = orjson.dumps([teacher, find(model).revision, groups.fingerprint, config.group_size, *of_dtype])
    scored = InputOptions((str(files.scores),))  # without the bad records, which are counted and written already
    found = replace(config.data, input=scored, qrels=None, label_field=None, bad=BadRecords())
    again = files.done.exists() and files.scores.exists()
    if again:
        if files.done.read_bytes() == mark:
            return found
        if config.resume is not Resume.NEVER and not config.overwrite:
            raise ChangedError(f"{shown(str(files.scores), 300)}: was made of other data, or by another teacher")
    _write(groups, files.groups)
    overwrite = config.overwrite or again
    config.notify(f"scoring {len(groups):,} groups with {teacher}: {files.scores}")
    summary, _ = run(
        RunConfig(
            model=model,
            input=InputOptions((str(files.groups),), shape=Shape.TRAIN),
            output=OutputOptions(str(files.scores), OutputFormat.API, AnswerOptions(teacher), overwrite),
            max_duration=seconds,
            on_changed=config.on_changed,
            resume=config.resume,
            progress=ProgressMode.PLAIN,
            progress_interval=config.progress_interval,
            notify=config.notify,
        ),
        start_session,
        lambda wanted: find(wanted).revision,
        signals=False,
    )
    if summary.interrupted:
        return None
    replace_file(files.done, mark)
    return found


def _write(groups: Groups, path: Path) -> None:
    """All groups as records, whole or not at all. A file that has them already stays. Raises OutputError."""
    made = path.with_name(path.name + ".new")
    with writing(str(path)):
        with open(made, "wb") as file:
            for record in groups.records(_TOGETHER):
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and filecmp.cmp(made, path, shallow=False):
            made.unlink()  # the run of the teacher goes on without reading it again
            return
        made.rename(path)
        sync_folder(path.parent)
