"""Joins a query and a passage into one sequence of token ids.

Query and passage are tokenized separately, without special tokens, truncated on the right, and joined by constant ids:
the tokenizer's own pair template, or a decoder's prompt. Truncation is FlagEmbedding's "only second". The case that it
does not define (a query that fills the limit) is defined here: the query is truncated until the passage keeps up to a
quarter of the available tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rerank_cli.models.prompts.profiles import fill, pieces_of

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Constant tokens around a pair: `prefix q middle p suffix`, with the segment (token type) of each part.

    XLM-R: `<s> q </s></s> p </s>`; BERT: `[CLS] q [SEP] p [SEP]` with types 0 and 1. `query_tail` is the text after the
    query in a prompt, and ends a truncated query as well. `passage_head` is the text before every document, and starts
    a passage from inside a document as well.
    """

    prefix: Ids
    middle: Ids
    suffix: Ids
    query_type: int = 0
    passage_type: int = 0
    special_types: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())
    query_tail: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    passage_head: Ids = field(default_factory=lambda: np.zeros(0, np.int32))

    @property
    def specials(self) -> int:
        """Number of constant tokens of a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def clip_query(self, ids: Ids, kept: int) -> Ids:
        """The first `kept` ids, the last of them replaced by `query_tail` if any are cut."""
        if kept >= len(ids) or not len(self.query_tail):
            return ids[:kept]
        tail = self.query_tail[:kept]
        return np.concatenate((ids[: kept - len(tail)], tail))

    def part_of_passage(self, ids: Ids, start: int, end: int) -> Ids:
        """Ids `start` to `end` of a document, after `passage_head` unless they start the document."""
        part = ids[start:end]
        return np.concatenate((self.passage_head, part)) if start and len(self.passage_head) else part


@dataclass(frozen=True, slots=True)
class PairRule:
    """A template, and the text written directly before and after each query and passage.

    `granted` is the number of constant tokens that `max_length` does not count: none for encoders, the prompt for
    FlagEmbedding's decoders. `max_length` and `query_share` are defaults. `shares_prefix` is True for causal models,
    which compute the common start of a query's sequences once.
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
        """The text tokenized for a query; a record's own instruction replaces the rule's."""
        instruction = self.query_instruction if instruction is None else instruction
        template = self.instructed_query if instruction and self.instructed_query else self.query
        return fill(template, query=query, instruction=instruction)

    @property
    def takes_instruction(self) -> bool:
        """Whether the query's text has a slot for an instruction."""
        return any(slot == "instruction" for _, slot in pieces_of(self.query + (self.instructed_query or "")))

    def passage_text(self, passage: str) -> str:
        """The text tokenized for a passage."""
        return fill(self.passage, passage=passage, instruction=self.passage_instruction)

    @property
    def passage_lead(self) -> str:
        """The part of `passage_text` before the passage."""
        pieces = pieces_of(self.passage)
        place = [slot for _, slot in pieces].index("passage")
        values = {"instruction": self.passage_instruction}
        return "".join(literal + values.get(slot or "", "") for literal, slot in pieces[: place + 1])


@dataclass(frozen=True, slots=True)
class Limits:
    """Token limits: `max_length` as requested, the query's own, and `room` for query and passage together."""

    max_length: int
    query_max_length: int
    room: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Number of tokens kept of each query and passage, [n] each."""

    query: Lengths
    passage: Lengths


def fit_lengths(query: Lengths, passage: Lengths, limits: Limits) -> Fit:
    """Reduce token counts, [n] each, so that query and passage fit `limits.room`.

    Source: bge-reranker "only_second" truncation, FlagEmbedding 1.4.
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
