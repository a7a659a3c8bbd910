"""What the data gives to a step, and the data as the loop sees it. Imports neither numpy nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DrawnGroup:
    """A query with the passages that a step sees, a positive first if the group has one.

    `place` is the number of the group in the data, from 0. `teacher` are the teacher's logits and `labels` the labels,
    one per passage; labels of a group that states none are 1 for the positive and 0 for the others. A prompt is None
    where the record has none.
    """

    place: int
    query: str
    passages: tuple[str, ...]
    teacher: tuple[float, ...] | None = None
    labels: tuple[float, ...] | None = None
    prompt: str | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None


class TrainingData(Protocol):
    """Groups in batches. What a step sees depends on the seed, the epoch and the places of its groups alone.

    `files` are the paths of all files that were read, each with the SHA-256 of its content; `fingerprint` is a hash of
    those. `with_teacher` counts the groups that have teacher scores, `short` those with fewer negatives than a step
    takes, `single` those with one passage, drawn with its label.
    """

    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def files(self) -> Mapping[str, str]: ...
    @property
    def with_teacher(self) -> int: ...
    @property
    def short(self) -> int: ...
    @property
    def single(self) -> int: ...
    def __len__(self) -> int:
        """The number of groups."""

    def batch(self, step: int) -> list[DrawnGroup]:
        """The groups of the global batch of a step, numbered from 0 over all epochs. Raises InputError."""

    def longest(self, count: int) -> Sequence[DrawnGroup]:
        """The groups with the most characters, each with its longest passages, longest group first."""

    def close(self) -> None: ...
