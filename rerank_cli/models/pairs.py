"""How a query and a passage become one sequence of token ids.

Query and passage are tokenized apart, without specials, clipped on the right, and joined by the tokenizer's own pair
template. The rule is FlagEmbedding's "only second" truncation; the corner it leaves open (a query that fills the
limit) is defined here: the query is clipped until the passage keeps up to a quarter of the room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Special tokens around a pair: `prefix q middle p suffix`, with the segment (token type) of each part.

    For XLM-R: `<s> q </s></s> p </s>`, for BERT `[CLS] q [SEP] p [SEP]` with types 0 and 1.
    """

    prefix: Ids
    middle: Ids
    suffix: Ids
    query_type: int
    passage_type: int
    special_types: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def specials(self) -> int:
        """Number of special tokens a pair costs."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class Limits:
    """Token limits: of the whole sequence with specials, and of the query alone."""

    max_length: int
    query_max_length: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How many tokens of each query and passage are kept; all arrays [n]."""

    query: Lengths
    passage: Lengths
    truncated: npt.NDArray[np.bool_]


def fit_lengths(query: Lengths, passage: Lengths, cap: Lengths, specials: int, limits: Limits) -> Fit:
    """Cut lengths so that every sequence fits `limits.max_length`.

    `query`, `passage` and `cap` are token counts, [n] each; `cap` is the most a passage may keep on its own
    (`max_tokens_per_doc`, or the limit). Source: bge-reranker "only_second" truncation, FlagEmbedding 1.4.
    """
    kept_query = np.minimum(query, limits.query_max_length)
    kept_passage = np.minimum(passage, np.minimum(cap, limits.max_length))
    room = limits.max_length - specials
    over = kept_query + kept_passage - room
    kept_passage = np.where((over > 0) & (kept_passage > over), kept_passage - over, kept_passage)
    crowded = kept_query + kept_passage > room
    kept_passage = np.where(crowded, np.minimum(kept_passage, room // 4), kept_passage)
    kept_query = np.where(crowded, np.minimum(kept_query, room - kept_passage), kept_query)
    return Fit(kept_query, kept_passage, (kept_query < query) | (kept_passage < passage))
