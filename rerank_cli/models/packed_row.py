"""A packed row: the token sequences of several pairs, concatenated without padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenRow:
    """The input of a model: T tokens in s segments, of which n are scored.

    `ids` and `types` (segment ids) are [T], `lengths` is [s] and sums to T. If `parents` is None, every segment is the
    whole sequence of a pair. Otherwise it is int64 [s]: a segment with a parent other than -1 continues that earlier
    segment, which holds the prefix that several pairs share and is not scored itself. Segments of equal length and
    parent are adjacent: attention without a variable-length kernel processes such runs at once. `passage_at`, [s], is
    the offset of the passage (of the second text, in prompts with the passage first) in its segment, or the segment's
    length if it has none; `closing` is the number of tokens after every passage.

    If `passages` is set, the row is one list, which is scored as a whole: its segments are the windows of the list, and
    `passages`, [s], is the number of passages in each. Each passage has a score.
    """

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int32]
    lengths: Index
    parents: Index | None = None
    passage_at: Index | None = None
    closing: int = 0
    passages: Index | None = None

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def sequences(self) -> int:
        """n, the number of scores of this row."""
        return len(self.scored) if self.passages is None else int(self.passages.sum())

    @property
    def divisible(self) -> bool:
        """Whether parts of the row have the scores that they have in it."""
        return self.passages is None and self.sequences > 1

    @cached_property
    def starts(self) -> Index:
        """Index of each segment's first token, [s]."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def scored(self) -> Index:
        """Indices of the scored segments, [n]."""
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
        """Tokens of each scored sequence, shared prefix included, [n]."""
        return (self.lengths + self.prefixes)[self.scored]

    @cached_property
    def positions(self) -> Index:
        """Index of each token in its own sequence, [T]."""
        return np.arange(self.tokens, dtype=np.int64) - np.repeat(self.starts - self.prefixes, self.lengths)

    def take(self, sequences: Index) -> TokenRow:
        """The row of these scored sequences, in the given order, each parent before its first child."""
        chosen = self.scored[sequences]
        parents = None
        if self.parents is not None:
            order: list[int] = []
            parents_in_order: list[int] = []
            places = {-1: -1}  # of the parents, in the new order
            for segment in chosen.tolist():
                parent = int(self.parents[segment])
                if parent not in places:
                    places[parent] = len(order)
                    order.append(parent)
                    parents_in_order.append(-1)
                order.append(segment)
                parents_in_order.append(places[parent])
            chosen, parents = np.array(order, dtype=np.int64), np.array(parents_in_order, dtype=np.int64)
        starts, lengths = self.starts[chosen], self.lengths[chosen]
        where = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        passage_at = None if self.passage_at is None else self.passage_at[chosen]
        return TokenRow(self.ids[where], self.types[where], lengths, parents, passage_at, self.closing)

    def halves(self) -> tuple[TokenRow, TokenRow]:
        """Two rows with half of the sequences each."""
        count = self.sequences
        return self.take(np.arange(count // 2)), self.take(np.arange(count // 2, count))

    def filled(self, tokens: int, longest: int) -> TokenRow:
        """The row with sequences of zeros, each of at most `longest` tokens, appended up to `tokens` tokens."""
        missing = tokens - self.tokens
        if not missing:
            return self
        extra = np.full(-(-missing // longest), longest, dtype=np.int64)
        extra[-1] -= extra.sum() - missing
        ids, types = (np.concatenate((values, np.zeros(missing, np.int32))) for values in (self.ids, self.types))
        return replace(
            self,
            ids=ids,
            types=types,
            lengths=np.concatenate((self.lengths, extra)),
            parents=None if self.parents is None else np.concatenate((self.parents, np.full_like(extra, -1))),
            passage_at=None if self.passage_at is None else np.concatenate((self.passage_at, extra)),
        )

    def unshared(self) -> TokenRow:
        """The same sequences, each with its own copy of the shared prefix."""
        if self.parents is None:
            return self
        parts = [part for segment in self.scored for part in (self.parents[segment], segment) if part >= 0]
        flat = np.concatenate([self.ids[self.starts[part] : self.starts[part] + self.lengths[part]] for part in parts])
        at = None if self.passage_at is None else (self.prefixes + self.passage_at)[self.scored]
        return TokenRow(flat, np.zeros_like(flat), self.sequence_lengths, None, at, self.closing)

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
    """`count` segments of `length` tokens. Their tokens start at index `token` of the row.

    Their scores start at index `sequence`, which is None for a shared prefix: it is not scored. `before` is (first
    token, length) of the prefix that the segments share.
    """

    token: int
    count: int
    length: int
    sequence: int | None
    before: tuple[int, int] | None = None
