"""How a query and a passage become one sequence of token ids.

Query and passage are tokenized apart, without specials, clipped on the right, and joined by constant ids around them:
the tokenizer's own pair template, or a decoder's prompt. The rule is FlagEmbedding's "only second" truncation; the
corner it leaves open (a query that fills the limit) is defined here: the query is clipped until the passage keeps up
to a quarter of the room.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rerank_cli.models.prompts.profiles import fill, pieces_of

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]


def no_ids() -> Ids:
    return np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Constant tokens around a pair: `prefix q middle p suffix`, with the segment (token type) of each part.

    For XLM-R: `<s> q </s></s> p </s>`, for BERT `[CLS] q [SEP] p [SEP]` with types 0 and 1. A query that is clipped
    ends in `query_tail`, the words that its text ends in. A passage that begins inside a document begins with
    `passage_head`, the words that stand before every document.
    """

    prefix: Ids
    middle: Ids
    suffix: Ids
    query_type: int = 0
    passage_type: int = 0
    special_types: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())
    query_tail: Ids = field(default_factory=no_ids)
    passage_head: Ids = field(default_factory=no_ids)

    @property
    def specials(self) -> int:
        """Number of tokens a pair costs beside its texts."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def clip_query(self, ids: Ids, kept: int) -> Ids:
        """The first `kept` ids, of which the last are the tail's if any are lost."""
        if kept >= len(ids) or not len(self.query_tail):
            return ids[:kept]
        tail = self.query_tail[:kept]
        return np.concatenate((ids[: kept - len(tail)], tail))

    def part_of_passage(self, ids: Ids, start: int, end: int) -> Ids:
        """Ids `start` to `end` of a document, behind the words before it."""
        part = ids[start:end]
        return np.concatenate((self.passage_head, part)) if start and len(self.passage_head) else part


@dataclass(frozen=True, slots=True)
class PairRule:
    """A template and what is written directly before and after each text.

    `granted` is how many of the constant tokens `max_length` does not count: none for encoders, the prompt for the
    decoders of FlagEmbedding. `max_length` and `query_share` are defaults. `shares_prefix` tells causal models, of
    which the start of a query's sequences is computed once.
    """

    template: PairTemplate
    query_instruction: str = ""
    passage_instruction: str = ""
    query: str = "{instruction}{query}"
    instructed_query: str | None = None
    passage: str = "{instruction}{passage}"
    granted: int = 0
    max_length: int = 512
    query_share: float = 0.75
    shares_prefix: bool = False

    def query_text(self, query: str, instruction: str | None = None) -> str:
        """What is tokenized for a query; a record's own instruction wins over the rule's."""
        instruction = self.query_instruction if instruction is None else instruction
        template = self.instructed_query if instruction and self.instructed_query else self.query
        return fill(template, query=query, instruction=instruction)

    @property
    def takes_instruction(self) -> bool:
        """Whether there is a place for a record's own instruction."""
        return any(slot == "instruction" for _, slot in pieces_of(self.query + (self.instructed_query or "")))

    def passage_text(self, passage: str) -> str:
        """What is tokenized for a passage."""
        return fill(self.passage, passage=passage, instruction=self.passage_instruction)

    @property
    def passage_lead(self) -> str:
        """What stands before the passage in what is tokenized for it."""
        pieces = pieces_of(self.passage)
        place = [slot for _, slot in pieces].index("passage")
        values = {"instruction": self.passage_instruction}
        return "".join(literal + values.get(slot or "", "") for literal, slot in pieces[: place + 1])


@dataclass(frozen=True, slots=True)
class Limits:
    """Token limits: `max_length` as it was asked for, of the query alone, and `room` for query and passage together."""

    max_length: int
    query_max_length: int
    room: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How many tokens of each query and passage are kept; all arrays [n]."""

    query: Lengths
    passage: Lengths


def fit_lengths(query: Lengths, passage: Lengths, limits: Limits) -> Fit:
    """Cut lengths so that query and passage fit `limits.room`.

    `query` and `passage` are token counts, [n] each. Source: bge-reranker "only_second" truncation, FlagEmbedding 1.4.
    """
    room = limits.room
    kept_query = np.minimum(query, limits.query_max_length)
    kept_passage = np.minimum(passage, limits.max_length)
    over = kept_query + kept_passage - room
    kept_passage = np.where((over > 0) & (kept_passage > over), kept_passage - over, kept_passage)
    crowded = kept_query + kept_passage > room
    kept_passage = np.where(crowded, np.minimum(kept_passage, room // 4), kept_passage)
    kept_query = np.where(crowded, np.minimum(kept_query, room - kept_passage), kept_query)
    return Fit(kept_query, kept_passage)
