"""Which passages of a group a step sees, and the order of an epoch: functions of seed, epoch and place alone.

The draw of a group is that of FlagEmbedding: one positive, and negatives without replacement; where there are too few,
each is repeated as often as needed and drawn from those.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rerank_cli.formats.shapes.groups import TrainingGroup
from rerank_cli.training.contract import DrawnGroup


def generator(seed: int, epoch: int, place: int) -> random.Random:
    """The random numbers of a group in an epoch."""
    return random.Random(f"{seed} {epoch} {place}")


def order(count: int, seed: int, epoch: int) -> npt.NDArray[np.uint32]:
    """The places of an epoch, shuffled."""
    numbers = np.arange(count, dtype=np.uint32)
    np.random.default_rng((seed, epoch)).shuffle(numbers)
    return numbers


def draw(group: TrainingGroup, place: int, size: int, random: random.Random) -> DrawnGroup:
    """One positive and `size` − 1 negatives, which keep their order. The group has at least one of each it needs."""
    cut, count, wanted = len(group.positives), len(group.negatives), size - 1
    positive = random.randrange(cut)
    numbers = list(range(count)) * -(-wanted // count) if wanted else []
    return taken(group, place, [positive, *(cut + number for number in sorted(random.sample(numbers, wanted)))])


def draw_labelled(group: TrainingGroup, place: int, size: int, random: random.Random) -> DrawnGroup:
    """At most `size` passages without replacement, a positive first if there is one; the others keep their order."""
    cut, count = len(group.positives), len(group.positives) + len(group.negatives)
    first = random.randrange(cut) if cut else random.randrange(count)
    others = [number for number in range(count) if number != first]
    if len(others) > size - 1:
        others = sorted(random.sample(others, size - 1))
    return taken(group, place, [first, *others])


def longest(group: TrainingGroup, place: int, size: int, repeat: bool) -> DrawnGroup:
    """The `size` longest passages, more than any step sees of the group; with `repeat` exactly so many."""
    lengths = [len(text) for text in group.passages]
    numbers = sorted(range(len(lengths)), key=lambda number: -lengths[number])[:size]
    return taken(group, place, [*numbers, *numbers[:1] * (size - len(numbers) if repeat else 0)])


def taken(group: TrainingGroup, place: int, numbers: Sequence[int]) -> DrawnGroup:
    """The passages of these numbers."""
    passages, cut = group.passages, len(group.positives)
    labels = group.labels or (1.0,) * cut + (0.0,) * len(group.negatives)
    return DrawnGroup(
        place,
        group.query,
        tuple(passages[number] for number in numbers),
        tuple(group.scores[number] for number in numbers) if group.scores else None,
        tuple(labels[number] for number in numbers),
        group.prompt,
        group.query_prompt,
        group.passage_prompt,
    )
