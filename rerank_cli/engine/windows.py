"""Long documents read in passages: where they begin, and how their scores become the document's.

MaxP, FirstP and the mean of the best three are those of Dai and Callan, "Deeper Text Understanding for IR with
Contextual Neural Language Modeling" (SIGIR 2019), and of common practice after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import LongDocuments
from rerank_cli.engine.plan import Index

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PassageRule:
    """How long documents are read. `stride` is tokens from one passage's start to the next's, None for 3/4 of it."""

    pooling: LongDocuments = LongDocuments.TRUNCATE
    stride: int | None = None

    @property
    def in_passages(self) -> bool:
        return self.pooling is not LongDocuments.TRUNCATE

    @property
    def reads_all(self) -> bool:
        """Whether every token of a document counts."""
        return self.pooling in {LongDocuments.MAX, LongDocuments.MEAN_TOP3}

    def cut(self, lengths: Index, room: Index, head: int = 0) -> Windows:
        """Passages of n documents of these token lengths, of which `room` [n] tokens fit at a time.

        Every passage but a document's first has `head` words more in front, which take of that room.
        """
        if self.pooling is LongDocuments.TRUNCATE:
            return Windows.one_each(np.minimum(lengths, room))
        inner = np.maximum(1, room - head)
        stride = np.maximum(1, (3 * inner) // 4 if self.stride is None else np.minimum(self.stride, inner))
        extra = np.where((lengths > room) & (room > 0), np.maximum(1, -(-(lengths - inner) // stride)), 0)
        if self.pooling is LongDocuments.FIRST:
            extra = np.zeros_like(extra)
        document = np.repeat(np.arange(len(lengths)), extra + 1)
        number = np.arange(len(document)) - np.repeat(np.cumsum(extra + 1) - extra - 1, extra + 1)
        start = number * stride[document]
        fits = np.where(number > 0, inner[document], room[document])
        length = np.minimum(lengths[document] - start, fits)
        return Windows(document, start, length, self.pooling, np.where(number > 0, head, 0))


@dataclass(frozen=True, slots=True)
class Windows:
    """k passages of n documents, k ≥ n, those of a document side by side: its number, first token and length, [k].

    `heads`, [k], are tokens that stand in front besides.
    """

    document: Index
    start: Index
    length: Index
    pooling: LongDocuments
    heads: Index

    @classmethod
    def one_each(cls, lengths: Index) -> Windows:
        """Documents of which no more than a beginning is read, of so many tokens."""
        nothing = np.zeros_like(lengths)
        return cls(np.arange(len(lengths)), nothing, lengths, LongDocuments.TRUNCATE, nothing)

    def pool(self, scores: Scores) -> tuple[Scores, Index]:
        """Scores of passages, [k] or [k, layers], to those of documents, and the passage that was best, [n].

        Best is the highest score, of the last layer where there are several; FIRST takes the first.
        """
        firsts = np.flatnonzero(np.diff(self.document, prepend=-1))
        if len(firsts) == len(self.document):
            return scores, np.arange(len(firsts))
        counts = np.diff(np.append(firsts, len(self.document)))
        deciding = scores if scores.ndim == 1 else scores[:, -1]
        order = np.lexsort((-deciding, self.document))
        best = order[firsts]
        if self.pooling is LongDocuments.MEAN_TOP3:
            return np.stack([_mean_of_best(scores[f : f + c]) for f, c in zip(firsts, counts, strict=True)]), best
        return np.maximum.reduceat(scores, firsts, axis=0), best


def _mean_of_best(scores: Scores) -> Scores:
    """The mean of the three highest, of all where there are fewer; a layer by itself."""
    best: Scores = np.sort(scores, axis=0)[::-1][:3].mean(axis=0, dtype=np.float32)
    return best
