"""A packed row: the token sequences of several pairs, one after the other, with no padding between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What a scorer takes: n sequences of T tokens in all.

    `ids` and `types` (segment ids) are [T], `lengths` is [n] and sums to T. Sequences of equal length stand side by
    side, because attention without a variable-length kernel runs over such runs.
    """

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Index of each sequence's first token, [n]."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Index of each token inside its own sequence, [T]."""
        return np.arange(self.tokens, dtype=np.int64) - np.repeat(self.starts, self.lengths)

    def take(self, sequences: npt.NDArray[np.int64]) -> TokenRow:
        """The row of these sequences alone, in the order given."""
        starts, lengths = self.starts[sequences], self.lengths[sequences]
        where = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        return TokenRow(self.ids[where], self.types[where], lengths)

    def halves(self) -> tuple[TokenRow, TokenRow]:
        """Two rows with half of the sequences each."""
        count = len(self.lengths)
        return self.take(np.arange(count // 2)), self.take(np.arange(count // 2, count))

    def runs(self) -> tuple[Run, ...]:
        """The row as runs of sequences of equal length."""
        edges = np.flatnonzero(np.diff(self.lengths)) + 1
        firsts = np.concatenate(([0], edges))
        counts = np.diff(np.concatenate((firsts, [len(self.lengths)])))
        starts = self.starts
        return tuple(
            Run(int(starts[first]), int(first), int(count), int(self.lengths[first]))
            for first, count in zip(firsts, counts, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Run:
    """`count` sequences of `length` tokens: the row's tokens from `token` on, its sequences from `sequence` on."""

    token: int
    sequence: int
    count: int
    length: int


@dataclass(frozen=True, slots=True)
class Packing:
    """How a packed row is cut into sequences; travels through the model's forward to the attention function.

    `offsets` is int32 [n + 1] on the model's device, `first` int64 [n] (each sequence's first token), `longest` the
    greatest sequence length.
    """

    runs: tuple[Run, ...]
    offsets: torch.Tensor
    first: torch.Tensor
    longest: int
