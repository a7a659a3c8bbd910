"""`--shard`: which part of the input a run works on, and how its files are named.

Slurm gives every task of an array its number, the number of tasks, the lowest number and the step
(https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES). Kubernetes gives the pods of an indexed
job their number, from 0, but not how many there are
(https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from rerank_cli.errors import UsageError
from rerank_cli.storage.compression import compression_of

MOST = 100_000
_GIVEN = re.compile(r"(?:(\d{1,9})|auto)(?:/(\d{1,9}))?")
_NAMED = re.compile(r"-(\d{5})-of-(\d{5,6})")
_TASK, _TASKS = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"
_LOWEST, _STEP = "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"
_INDEX = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True, slots=True)
class Shard:
    """Part number `index` of `count` equal parts, from 0. `errors` is `--errors` as given, without the number."""

    index: int
    count: int
    errors: str | None = None

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def named(self, path: str) -> str:
        """The path of this shard's file: `part.jsonl.gz` is `part-00003-of-00008.jsonl.gz`."""
        stem = path.rpartition(".")[0] if compression_of(path) else path
        suffix = PurePath(stem).suffix
        end = path[len(stem) - len(suffix) :]
        return f"{path[: len(path) - len(end)]}-{self.index:05d}-of-{self.count:05d}{end}"

    def share_of(self, total: int) -> tuple[int, int]:
        """Begin and end of this part of `total`; the parts of all shards are `total` without gaps or overlaps."""
        return total * self.index // self.count, total * (self.index + 1) // self.count


def by_name(path: str) -> Shard | None:
    """The shard that a file name states, None if it states none."""
    found = _NAMED.findall(PurePath(path).name)
    return Shard(int(found[-1][0]), int(found[-1][1])) if found else None


def parse(text: str, environment: Mapping[str, str]) -> Shard:
    """`3/8`, or `auto` and `auto/8`, whose numbers are in the environment of a task. Raises UsageError."""
    found = _GIVEN.fullmatch(text.strip())
    if not found or (found[1] and not found[2]):
        raise UsageError(f"--shard {text}: expected I/N from 0, like 3/8; or auto, or auto/8")
    count = int(found[2]) if found[2] else None
    if not found[1]:
        return _automatic(text, count, environment)
    return _checked(f"--shard {text}", int(found[1]), count or 0)


def _automatic(text: str, count: int | None, environment: Mapping[str, str]) -> Shard:
    if _TASK in environment:
        return _of_array(text, count, environment)
    if _INDEX in environment:
        index = _number(environment, _INDEX, text)
        if count is None:
            what = f"--shard {text}: {_INDEX}={index}, but Kubernetes does not say how many indexes there are"
            raise UsageError(f"{what}. Fix: --shard auto/N with N as in `completions`")
        return _checked(f"--shard {text}: {_INDEX}={index}", index, count)
    what = f"--shard {text}: neither {_TASK} (a Slurm array) nor {_INDEX} (an indexed Kubernetes job) is set"
    raise UsageError(f"{what}. Fix: --shard I/N")


def _of_array(text: str, count: int | None, environment: Mapping[str, str]) -> Shard:
    """The place of a task in its array, which may begin at any number and have a step, but no gaps."""
    task, tasks = _number(environment, _TASK, text), _number(environment, _TASKS, text)
    lowest = _number(environment, _LOWEST, text)
    step = max(1, _number(environment, _STEP, text)) if _STEP in environment else 1
    index, beside = divmod(task - lowest, step)
    if beside or not 0 <= index < tasks:
        what = f"--shard {text}: task {task} of an array of {tasks} from {lowest}, which has gaps"
        raise UsageError(f"{what}. Fix: --array=0-{max(0, tasks - 1)}, or --shard I/N")
    if count is not None and count != tasks:
        what = f"--shard {text}: the array has {tasks} tasks (expected {count})"
        raise UsageError(f"{what}. Fix: --shard I/{count} for some of the shards, such as ${_TASK}/{count}")
    return _checked(f"--shard {text}", index, tasks)


def _number(environment: Mapping[str, str], name: str, text: str) -> int:
    value = environment.get(name, "")
    if not (value.isascii() and value.isdigit()):
        raise UsageError(f"--shard {text}: {name} is no number (got {value!r}). Fix: --shard I/N")
    return int(value)


def _checked(what: str, index: int, count: int) -> Shard:
    if not 1 <= count <= MOST:
        raise UsageError(f"{what}: the number of shards is {count} (expected 1 to {MOST:,})")
    if index >= count:
        raise UsageError(f"{what}: shards are counted from 0 (expected 0 to {count - 1})")
    return Shard(index, count)
