"""Long documents scored in passages: where passages begin, and how their scores are pooled.

MaxP, FirstP and the mean of the top three follow Dai and Callan, "Deeper Text Understanding for IR with Contextual
Neural Language Modeling" (SIGIR 2019), and later practice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import LongDocuments
from rerank_cli.engine.rows.plan import Index

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PassageRule:
    """How long documents are scored. `stride` is the tokens between two passage starts; None is 3/4 of a passage."""

    pooling: LongDocuments = LongDocuments.TRUNCATE
    stride: int | None = None

    @property
    def in_passages(self) -> bool:
        return self.pooling is not LongDocuments.TRUNCATE

    @property
    def reads_all(self) -> bool:
        """Whether every token of a document is scored."""
        return self.pooling in {LongDocuments.MAX, LongDocuments.MEAN_TOP3}

    def cut(self, lengths: Index, room: Index, head: int = 0) -> Windows:
        """Split n documents of these token lengths into passages of at most `room` [n] tokens.

        `head` constant tokens precede every passage but a document's first, and count towards its room.
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
    """k passages of n documents, k ≥ n, those of a document adjacent: document index, first token and length, [k].

    `heads`, [k], is the number of constant tokens before each passage.
    """

    document: Index
    start: Index
    length: Index
    pooling: LongDocuments
    heads: Index

    @classmethod
    def one_each(cls, lengths: Index) -> Windows:
        """One passage per document: its first `lengths` [n] tokens."""
        nothing = np.zeros_like(lengths)
        return cls(np.arange(len(lengths)), nothing, lengths, LongDocuments.TRUNCATE, nothing)

    def pool(self, scores: Scores) -> tuple[Scores, Index]:
        """Pool scores of passages, [k] or [k, layers], to documents; returns them and each best passage's index, [n].

        The best passage has the highest score, by the last layer if there are several; FIRST takes the first.
        """
        firsts = np.flatnonzero(np.diff(self.document, prepend=-1))
        if len(firsts) == len(self.document):
            return scores, np.arange(len(firsts))
        deciding = scores if scores.ndim == 1 else scores[:, -1]
        best = np.lexsort((-deciding, self.document))[firsts]
        if self.pooling is LongDocuments.MEAN_TOP3:
            ordered = (np.sort(part, axis=0)[::-1] for part in np.split(scores, firsts[1:]))
            return np.stack([part[:3].mean(axis=0, dtype=np.float32) for part in ordered]), best
        return np.maximum.reduceat(scores, firsts, axis=0), best
