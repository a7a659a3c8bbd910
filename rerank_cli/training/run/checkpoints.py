"""The work folder of an unfinished training run: whole checkpoints, the best weights, the log.

A checkpoint is a folder, written and synced under another name and renamed into place, so that it is there as a whole
or not at all. Checkpoints are numbered; the one before is removed only afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from rerank_cli.choices import Resume
from rerank_cli.display import shown
from rerank_cli.errors import RefusedError, UsageError
from rerank_cli.storage.files import writing
from rerank_cli.storage.lock import locked
from rerank_cli.storage.paths import STREAM, final_path, is_special, sync_folder

if TYPE_CHECKING:
    from torch import Tensor

_KIND = "rerank training 1"
_CHECKPOINT = re.compile(r"checkpoint-(\d{8})")
_OURS = re.compile(r"(checkpoint-\d{8}|best-\d{8}|result|before)(\.new)?|log\.jsonl")
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
MANIFEST = "rerank_training.json"


@dataclass(slots=True)
class TrainingState:
    """What a run has done so far, but for its tensors.

    `steps_done` steps are computed. `evaluations` has one object for each evaluation, the first that of the model
    before training, whose figures for each query are `baseline`. `best_step` is the step of the best
    evaluation. `log_bytes` are the valid bytes of the log. `equal_scores` counts the last steps in a row in which all
    passages of a group had the same score.
    """

    fingerprint: dict[str, Any]
    steps_done: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    baseline: dict[str, Any] = field(default_factory=dict)
    best_step: int | None = None
    log_bytes: int = 0
    seconds: float = 0.0
    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    part_tokens: int | None = None
    equal_scores: int = 0
    stopped_early: bool = False


class WorkFolder:
    """The files of the run that makes the folder `output`: NAME.partial, NAME.partial-base and NAME.lock beside it."""

    def __init__(self, output: str) -> None:
        """Raises UsageError for a path that cannot be a folder."""
        if not output or output == STREAM or is_special(output):
            raise UsageError(f"-o {output or repr('')}: the result is a folder. Fix: -o FOLDER")
        self.output = output
        self.final = final_path(output)
        if not self.final.name:
            raise UsageError(f"-o {output}: is the root folder. Fix: -o FOLDER")
        self.path = self.final.with_name(self.final.name + ".partial")
        self.lock = self.final.with_name(self.final.name + ".lock")
        self.base = self.final.with_name(self.final.name + ".partial-base")
        self.log = self.path / "log.jsonl"
        self._before = self.path / "before"

    @contextmanager
    def held(self) -> Iterator[Callable[[str], None]]:
        """Holds the lock of the output. Raises RefusedError if another process holds it, OutputError."""
        with locked(self.lock, self.output) as note:
            yield note

    def create(self) -> None:
        """Make the folder, empty. Raises RefusedError if there is one that has files of others, OutputError."""
        with writing(self.output):
            foreign = (
                [path.name for path in self.path.iterdir() if not _OURS.fullmatch(path.name)]
                if self.path.exists()
                else []
            )
            if foreign:
                what = f"exists and was not made by rerank train (it has {shown(foreign[0], 40)})"
                raise RefusedError(f"{self.path}: {what}. Fix: another -o")
            self.forget()
            self.path.mkdir(exist_ok=True)
            sync_folder(self.path.parent)

    def saved(self, resume: Resume) -> TrainingState | None:
        """The state of the newest checkpoint. RefusedError if it is damaged, or `--resume require` finds none."""
        newest = self._newest()
        if newest is None or resume is Resume.NEVER:
            if resume is Resume.REQUIRE:
                raise RefusedError(f"{self.output}: there is no checkpoint to resume from. Fix: --resume auto")
            return None
        try:
            content = orjson.loads((newest / STATE).read_bytes())
            if content.pop("kind") != _KIND:
                raise RefusedError(f"{newest}: written by another version of rerank. Fix: --restart")
            sizes = content.pop("sizes")
            if any((newest / name).stat().st_size != size for name, size in sizes.items()):
                raise ValueError
            return TrainingState(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = "the checkpoint is damaged, the run cannot be resumed"
            raise RefusedError(f"{newest}: {what}. Fix: --restart") from error

    def save(self, state: TrainingState, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Make a checkpoint, and with `best_step` of this step also the best weights. Raises OutputError."""
        from safetensors.torch import save_file

        newest = self._newest()
        name = f"checkpoint-{int(newest.name.rpartition('-')[2]) + 1 if newest else 0:08}"
        with writing(self.output), self._whole(self.path / name) as folder:
            save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
            save_file({name: tensor.detach().contiguous() for name, tensor in optimizer.items()}, folder / OPTIMIZER)
            sizes = {name: (folder / name).stat().st_size for name in (WEIGHTS, OPTIMIZER)}
            (folder / STATE).write_bytes(orjson.dumps({"kind": _KIND, "sizes": sizes, **asdict(state)}))
        self.keep_best(state)
        with writing(self.output):
            self._remove_but(name, _best_name(state))

    def keep_best(self, state: TrainingState) -> None:
        """Link the weights of the newest checkpoint, if it is the best, where later ones do not replace them."""
        best, newest = _best_name(state), self._newest()
        if best is None or newest is None or (self.path / best).exists():
            return
        with writing(self.output), self._whole(self.path / best) as folder:
            try:
                os.link(newest / WEIGHTS, folder / WEIGHTS)
            except OSError:  # a file system without hard links
                shutil.copyfile(newest / WEIGHTS, folder / WEIGHTS)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of the newest checkpoint, of `WEIGHTS` or `OPTIMIZER`."""
        newest = self._newest()
        assert newest is not None
        return _read(newest / name)

    def best_weights(self, state: TrainingState) -> dict[str, Tensor]:
        """The weights of the best evaluation."""
        return _read(self.path / str(_best_name(state)) / WEIGHTS)

    def publish(self, write: Callable[[Path], None]) -> None:
        """Write the result by `write` into a folder, and rename that to its final name. Raises OutputError."""
        with writing(self.output):
            made = self.path / "result"
            with self._whole(made) as folder:
                write(folder)
            if self.final.exists():
                self.final.rename(self._before)
            made.rename(self.final)
            sync_folder(self.final.parent)
            self.forget()

    def restore(self) -> None:
        """Put back the earlier result, if a kill hit `publish` after it was moved away. Raises OutputError."""
        if self._before.exists() and not self.final.exists():
            with writing(self.output):
                self._before.rename(self.final)

    def forget(self) -> None:
        """Remove all files of an unfinished run but the checkpoint that it began with, which it may still read."""
        shutil.rmtree(self.path, ignore_errors=True)

    def place_log(self, path: str | None, keep: int) -> Path:
        """Where the log is written: `path`, to which a link is made in the work folder, or the work folder.

        The first `keep` bytes go there if the log was elsewhere before. Raises OutputError.
        """
        place = self.log if path is None else Path(path)
        with writing(str(place)):
            elsewhere = path is None or not place.exists() or not self.log.exists() or not place.samefile(self.log)
            if elsewhere and (path is not None or self.log.is_symlink()):
                kept = self.log.read_bytes()[:keep] if self.log.exists() else None
                self.log.unlink(missing_ok=True)
                if kept is not None:
                    place.write_bytes(kept)
            if path is not None and not self.log.exists():
                with suppress(OSError):  # a file system without links: `rerank status` then knows less
                    self.log.symlink_to(place.absolute())
        return place

    def forget_unused(self) -> None:
        """Remove the folder if no step was computed."""
        with suppress(OSError):
            if self._newest() is None and not (self.log.exists() and self.log.stat().st_size):
                self.forget()

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of the finished result, None if there is none."""
        with suppress(OSError, ValueError):
            found = orjson.loads((self.final / MANIFEST).read_bytes())
            return found if isinstance(found, dict) else None
        return None

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise RefusedError if there is something at the output's path that must not be replaced."""
        if not self.final.exists():
            return
        if not self.final.is_dir():
            raise RefusedError(f"{shown(self.output, 300)}: exists and is no folder. Fix: another -o")
        if not overwrite and any(self.final.iterdir()):
            raise RefusedError(f"{shown(self.output, 300)}: exists already. Fix: --overwrite, or another -o")
        if self.manifest() is None and any(self.final.iterdir()):
            what = "exists and was not made by rerank train"
            raise RefusedError(f"{shown(self.output, 300)}: {what}. Fix: another -o")

    @contextmanager
    def _whole(self, final: Path) -> Iterator[Path]:
        """A new folder, synced with its files and renamed to `final` after the block."""
        made = final.with_name(final.name + ".new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        yield made
        for folder, _, names in os.walk(made):
            for name in names:
                with open(Path(folder, name), "rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(folder))
        shutil.rmtree(final, ignore_errors=True)
        made.rename(final)
        sync_folder(final.parent)

    def _newest(self) -> Path | None:
        """The folder of the newest checkpoint."""
        with suppress(OSError):
            found = [path for path in self.path.iterdir() if _CHECKPOINT.fullmatch(path.name)]
            return max(found, key=lambda path: path.name, default=None)
        return None

    def _remove_but(self, *names: str | None) -> None:
        """Remove other checkpoints, and what a killed process left."""
        for path in self.path.iterdir():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # safetensors raises an error of its own besides OSError
        raise RefusedError(f"{path}: cannot be read ({shown(str(error), 160)}). Fix: --restart") from error


def _best_name(state: TrainingState) -> str | None:
    return None if state.best_step is None else f"best-{state.best_step:08}"
