"""A packed row: the token sequences of several pairs, one after the other, with no padding between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenRow:
    """What a scorer takes: T tokens in s segments, of which n are scored.

    `ids` and `types` (segment ids) are [T], `lengths` is [s] and sums to T. Without `parents` every segment is the
    whole sequence of a pair. With it, int64 [s], a segment whose parent is not -1 goes on where that one, which stands
    before it, ends: the shared beginning of several pairs is there once, and is not scored itself. Segments of equal
    length and parent stand side by side, because attention without a variable-length kernel runs over such runs.
    `passage_at`, [s], is where in a segment the passage begins, the segment's length where there is none; `closing`
    counts the tokens behind every passage.
    """

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int32]
    lengths: Index
    parents: Index | None = None
    passage_at: Index | None = None
    closing: int = 0

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def sequences(self) -> int:
        """n, the number of scores this row gives."""
        return len(self.scored)

    @cached_property
    def starts(self) -> Index:
        """Index of each segment's first token, [s]."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def scored(self) -> Index:
        """The segments that are scored, [n]."""
        everyone = np.arange(len(self.lengths))
        return everyone if self.parents is None else np.setdiff1d(everyone, self.parents)

    @cached_property
    def prefixes(self) -> Index:
        """Number of tokens before each segment in its sequence, [s]."""
        if self.parents is None:
            return np.zeros_like(self.lengths)
        return np.where(self.parents < 0, 0, self.lengths[self.parents])

    @cached_property
    def sequence_lengths(self) -> Index:
        """Tokens of each scored sequence, shared ones too, [n]."""
        return (self.lengths + self.prefixes)[self.scored]

    @cached_property
    def positions(self) -> Index:
        """Index of each token inside its own sequence, [T]."""
        return np.arange(self.tokens, dtype=np.int64) - np.repeat(self.starts - self.prefixes, self.lengths)

    def take(self, sequences: Index) -> TokenRow:
        """The row of these scored sequences alone, in the order given."""
        chosen = self.scored[sequences]
        parents = None
        if self.parents is not None:
            chosen, parents = self._with_parents(chosen)
        starts, lengths = self.starts[chosen], self.lengths[chosen]
        where = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        passage_at = None if self.passage_at is None else self.passage_at[chosen]
        return TokenRow(self.ids[where], self.types[where], lengths, parents, passage_at, self.closing)

    def _with_parents(self, chosen: Index) -> tuple[Index, Index]:
        """The segments with those they go on from, each before its first child, and the parents' new numbers."""
        assert self.parents is not None
        order: list[int] = []
        places: dict[int, int] = {-1: -1}
        parents: list[int] = []
        for segment in chosen.tolist():
            parent = int(self.parents[segment])
            if parent not in places:
                places[parent] = len(order)
                order.append(parent)
                parents.append(-1)
            order.append(segment)
            parents.append(places[parent])
        return np.array(order, dtype=np.int64), np.array(parents, dtype=np.int64)

    def halves(self) -> tuple[TokenRow, TokenRow]:
        """Two rows with half of the sequences each."""
        count = self.sequences
        return self.take(np.arange(count // 2)), self.take(np.arange(count // 2, count))

    def filled(self, tokens: int, longest: int) -> TokenRow:
        """The row with sequences of zeros behind it, none above `longest`, that bring it to so many tokens."""
        missing = tokens - self.tokens
        if not missing:
            return self
        extra = np.full(-(-missing // longest), longest, dtype=np.int64)
        extra[-1] -= extra.sum() - missing
        ids, types = (np.concatenate((values, np.zeros(missing, np.int32))) for values in (self.ids, self.types))
        alone = np.full_like(extra, -1)
        return replace(
            self,
            ids=ids,
            types=types,
            lengths=np.concatenate((self.lengths, extra)),
            parents=None if self.parents is None else np.concatenate((self.parents, alone)),
            passage_at=None if self.passage_at is None else np.concatenate((self.passage_at, extra)),
        )

    def unshared(self) -> TokenRow:
        """The same sequences, each with its own copy of what it shared."""
        if self.parents is None:
            return self
        ids, lengths, passage_at = [], [], []
        for segment in self.scored.tolist():
            whole = [part for part in (int(self.parents[segment]), segment) if part >= 0]
            ids += [self.ids[self.starts[part] : self.starts[part] + self.lengths[part]] for part in whole]
            lengths.append(sum(int(self.lengths[part]) for part in whole))
            passage_at.append(
                int(self.prefixes[segment] + (0 if self.passage_at is None else self.passage_at[segment]))
            )
        flat = np.concatenate(ids)
        at = None if self.passage_at is None else np.array(passage_at)
        return TokenRow(flat, np.zeros_like(flat), np.array(lengths), None, at, self.closing)

    def runs(self) -> tuple[Run, ...]:
        """The row as runs of segments of equal length and parent."""
        parents = np.full(len(self.lengths), -1) if self.parents is None else self.parents
        number = np.full(len(self.lengths), -1)
        number[self.scored] = np.arange(self.sequences)
        changes = (np.diff(self.lengths) != 0) | (np.diff(parents) != 0) | (np.diff(number) != 1)
        firsts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        counts = np.diff(np.concatenate((firsts, [len(self.lengths)])))
        found = []
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
            parent = int(parents[first])
            before = None if parent < 0 else (int(self.starts[parent]), int(self.lengths[parent]))
            sequence = None if number[first] < 0 else int(number[first])
            found.append(Run(int(self.starts[first]), count, int(self.lengths[first]), sequence, before))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Run:
    """`count` segments of `length` tokens: the row's tokens from `token` on, its scores from `sequence` on.

    `sequence` is None for a beginning that is not scored. `before` is (first token, length) of the shared beginning.
    """

    token: int
    count: int
    length: int
    sequence: int | None
    before: tuple[int, int] | None = None
