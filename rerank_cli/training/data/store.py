"""Groups at any place, and the batches of a training run made of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rerank_cli.errors import InputError
from rerank_cli.formats.shapes.groups import TrainingGroup
from rerank_cli.records import Json
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.data.draws import draw, draw_labelled, generator, longest, order, taken
from rerank_cli.training.data.index import GroupIndex
from rerank_cli.training.data.rules import GroupCounts, GroupRules

_TRIES = 20  # draws of another query for each negative that is missing


class GroupStore(Protocol):
    """Groups by place. `texts` replaces what stands for texts in drawn groups by the texts."""

    index: GroupIndex
    counts: GroupCounts

    def group(self, place: int) -> TrainingGroup: ...
    def texts(self, drawn: list[DrawnGroup]) -> list[DrawnGroup]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Groups in the global batch of a step, and how their order and draws are determined."""

    batch_groups: int
    seed: int = 0
    shuffle: bool = True


class Groups:
    """The `TrainingData` of a store. The last batch of an epoch may be smaller than the others."""

    def __init__(
        self, store: GroupStore, rules: GroupRules, plan: BatchPlan, files: Mapping[str, str], mark: str
    ) -> None:
        self._store = store
        self._rules = rules
        self._plan = plan
        self._order: tuple[int, npt.NDArray[np.uint32]] = (-1, np.empty(0, np.uint32))
        self.files = files
        self.fingerprint = mark
        self.counts = store.counts
        self.close = store.close

    def __len__(self) -> int:
        return len(self._store.index)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self) // self._plan.batch_groups)

    @property
    def with_teacher(self) -> int:
        return self.counts.with_teacher

    @property
    def short(self) -> int:
        return self.counts.short

    @property
    def single(self) -> int:
        return self.counts.single

    def batch(self, step: int) -> list[DrawnGroup]:
        """See `TrainingData.batch`."""
        epoch, number = divmod(step, self.steps_per_epoch)
        begin = number * self._plan.batch_groups
        places = self._places(epoch)[begin : begin + self._plan.batch_groups]
        return self._store.texts([self.drawn(place, epoch) for place in places.tolist()])

    def longest(self, count: int) -> list[DrawnGroup]:
        """See `TrainingData.longest`."""
        sizes = self._store.index.sizes
        places = np.argsort(-sizes.astype(np.int64), kind="stable")[:count].tolist()
        groups = [(place, self._store.group(place)) for place in places]
        size, labelled = self._rules.group_size, self._rules.draws_labelled
        return self._store.texts([longest(group, place, size, not labelled(group)) for place, group in groups])

    def records(self, together: int) -> Iterator[dict[str, Json]]:
        """All groups with their texts as training records; texts are looked up for `together` groups at a time."""
        for begin in range(0, len(self), together):
            places = range(begin, min(begin + together, len(self)))
            groups = [self._store.group(place) for place in places]
            drawn = [
                taken(group, place, range(len(group.passages))) for place, group in zip(places, groups, strict=True)
            ]
            for group, whole in zip(groups, self._store.texts(drawn), strict=True):
                cut = len(group.positives)
                positives, negatives = whole.passages[:cut], whole.passages[cut:]
                yield replace(group, query=whole.query, positives=positives, negatives=negatives).as_record()

    def drawn(self, place: int, epoch: int) -> DrawnGroup:
        """The group at a place as an epoch sees it. Raises InputError."""
        group, random = self._store.group(place), generator(self._plan.seed, epoch, place)
        size = self._rules.group_size
        if self._rules.draws_labelled(group):
            return draw_labelled(group, place, size, random)
        if self._rules.lacks(group) and not group.negatives:
            group = self._with_others(group, place, random)
        return draw(group, place, size, random)

    def _with_others(self, group: TrainingGroup, place: int, random: random.Random) -> TrainingGroup:
        """A group without negatives with positives of other queries in their place, drawn from all the data."""
        found: dict[str, None] = {}
        wanted = self._rules.group_size - 1
        for _ in range(_TRIES * wanted):
            other = random.randrange(len(self))
            if other != place:
                candidate = self._store.group(other)
                text = candidate.positives[random.randrange(len(candidate.positives))] if candidate.positives else None
                if text is not None and candidate.query != group.query and text not in group.positives:
                    found[text] = None
            if len(found) == wanted:
                break
        if not found:
            what = "has no negatives, and no other query has a passage to take in their place"
            raise InputError(f"{self._store.index.where(place)}: {what}. Fix: rerank mine")
        return replace(group, negatives=tuple(found), scores=None, labels=None)

    def _places(self, epoch: int) -> npt.NDArray[np.uint32]:
        """The places of an epoch in order; those of the last epoch asked for are kept."""
        if not self._plan.shuffle:
            return np.arange(len(self), dtype=np.uint32)
        known, places = self._order
        if known != epoch:
            places = order(len(self), self._plan.seed, epoch)
            self._order = epoch, places
        return places
