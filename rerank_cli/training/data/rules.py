"""What a loss needs of a group, and what the groups of the data have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from heapq import nlargest

from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.groups import TrainingGroup
from rerank_cli.records import Rejection

Reject = Callable[[Rejection], None]
"""Takes a bad record: raises InputError if the run must end because of it."""


@dataclass(frozen=True, slots=True)
class GroupRules:
    """How groups are drawn. `group_size` counts the passages of a step.

    Of a text at most `most_characters` count when the longest groups are looked for: the model cuts longer ones.

    With `labelled` passages are drawn with their labels, whatever these are; else one positive and negatives. With
    `unit_labels` labels are probabilities. With `teacher_labels` the teacher's scores are the labels of a group
    that has none.
    """

    group_size: int = 8
    labelled: bool = False
    unit_labels: bool = False
    teacher_labels: bool = False
    most_characters: int = 4096

    def checked(self, group: TrainingGroup) -> TrainingGroup:
        """The group as it is drawn from, without negatives that equal one of its positives.

        Raises BadRecord for a group without a positive or without passages, and for a label that is no probability.
        """
        if self.teacher_labels and group.labels is None and group.scores is not None:
            group = replace(group, labels=group.scores)
        if not group.positives and not (self.labelled and group.labels):
            raise BadRecord("no_positive", f"the record has no positive (got {len(group.negatives)} negatives)")
        wrong = [label for label in group.labels or () if not 0 <= label <= 1] if self.unit_labels else []
        if wrong:
            got = f"got {wrong[0]:g}, expected 0 to 1"
            raise BadRecord("bad_label", f"the label is no probability ({got}). Fix: --loss mse, or listnet")
        if self.draws_labelled(group) or set(group.positives).isdisjoint(group.negatives):
            return group
        cut = len(group.positives)
        kept = [number for number, text in enumerate(group.negatives) if text not in group.positives]
        numbers = [*range(cut), *(cut + number for number in kept)]
        return replace(
            group,
            negatives=tuple(group.negatives[number] for number in kept),
            scores=group.scores and tuple(group.scores[number] for number in numbers),
            labels=group.labels and tuple(group.labels[number] for number in numbers),
        )

    def draws_labelled(self, group: TrainingGroup) -> bool:
        """Whether passages are drawn with their labels."""
        return self.labelled and group.labels is not None

    def lacks(self, group: TrainingGroup) -> int:
        """How many negatives of a step the group does not have."""
        return 0 if self.draws_labelled(group) else max(0, self.group_size - 1 - len(group.negatives))

    def size(self, query: int, passages: Iterable[int]) -> int:
        """The characters of the longest passages that a step can see, each with the query, given those of the texts."""
        lengths = nlargest(self.group_size, (min(length, self.most_characters) for length in passages))
        return len(lengths) * min(query, self.most_characters) + sum(lengths)


@dataclass(slots=True)
class GroupCounts:
    """Groups with teacher scores of all that is drawn, with labels, with too few negatives, and with no negatives.

    `single` are those that have one passage, drawn with its label.
    """

    with_teacher: int = 0
    with_labels: int = 0
    short: int = 0
    without_negatives: int = 0
    single: int = 0

    def add(self, group: TrainingGroup, rules: GroupRules) -> None:
        lacks = rules.lacks(group)
        self.with_teacher += group.scores is not None and (not lacks or bool(group.negatives))
        self.with_labels += group.labels is not None
        self.without_negatives += bool(lacks) and not group.negatives
        self.short += bool(lacks) and bool(group.negatives)
        self.single += rules.draws_labelled(group) and len(group.passages) == 1
