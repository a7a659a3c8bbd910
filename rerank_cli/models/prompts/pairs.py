"""Joins a query and a passage into one sequence of token ids.

Query and passage are tokenized separately, without special tokens, truncated, and joined by constant ids: the
tokenizer's own pair template, or a decoder's prompt. Truncation is FlagEmbedding's "only second", unless a checkpoint
states another. The case that it does not define (a query that fills the limit) is defined here: the query is truncated
until the passage keeps up to a quarter of the available tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rerank_cli.models.prompts.profiles import fill, pieces_of

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
T = TypeVar("T")


class Cut(Enum):
    """Which text of a pair is cut. PASSAGE: see above. LONGEST: the longer one. END: the end of the whole sequence."""

    PASSAGE = "passage"
    LONGEST = "longest"
    END = "end"


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Constant tokens around a pair: `prefix q middle p suffix`, with the segment (token type) of each part.

    With `passage_first`, which only prompts have, it is `prefix p middle q suffix`.
    XLM-R: `<s> q </s></s> p </s>`; BERT: `[CLS] q [SEP] p [SEP]` with types 0 and 1. `query_tail` and `passage_tail`
    are the text after query and passage in a prompt, and end a truncated one as well. `passage_head` is the text before
    every document, and starts a passage from inside a document as well. With `keeps_end`, texts are cut at their
    beginning.
    """

    prefix: Ids
    middle: Ids
    suffix: Ids
    query_type: int = 0
    passage_type: int = 0
    special_types: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())
    query_tail: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    passage_head: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    passage_tail: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    keeps_end: bool = False
    passage_first: bool = False

    @property
    def specials(self) -> int:
        """Number of constant tokens of a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def in_order(self, query: T, passage: T) -> tuple[T, T]:
        """What belongs to the query and to the passage, in the order of the texts."""
        return (passage, query) if self.passage_first else (query, passage)

    def clip_query(self, ids: Ids, kept: int) -> Ids:
        """The first `kept` ids, the last of them replaced by `query_tail` if any are cut; or the last `kept` ids."""
        if self.keeps_end:
            return ids[max(0, len(ids) - kept) :]
        return _clipped(ids, 0, kept, self.query_tail)

    def part_of_passage(self, ids: Ids, start: int, end: int) -> Ids:
        """Ids `start` to `end` of a document, after `passage_head` unless they start the document."""
        part = _clipped(ids, start, end, self.passage_tail)
        return np.concatenate((self.passage_head, part)) if start and len(self.passage_head) else part


def _clipped(ids: Ids, start: int, end: int, tail: Ids) -> Ids:
    """Ids `start` to `end`, the last of them replaced by `tail` if the end is cut off."""
    if end >= len(ids) or not len(tail):
        return ids[start:end]
    tail = tail[: end - start]
    return np.concatenate((ids[start : end - len(tail)], tail))


@dataclass(frozen=True, slots=True)
class PairRule:
    """A template, and the text written directly before and after each query and passage.

    `granted` is the number of constant tokens that `max_length` does not count: none for encoders, the prompt for
    FlagEmbedding's decoders. `max_length` and `query_share` are defaults. `shares_prefix` is True for causal models,
    which compute the common start of a query's sequences once. With `strips`, white space around texts is dropped.
    Without `own_instructions`, a record's instruction is refused.
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
    cut: Cut = Cut.PASSAGE
    strips: bool = False
    own_instructions: bool = True

    def query_text(self, query: str, instruction: str | None = None) -> str:
        """The text tokenized for a query; a record's own instruction replaces the rule's."""
        instruction = self.query_instruction if instruction is None else instruction
        if self.strips:
            query, instruction = query.strip(), instruction.strip()
        template = self.instructed_query if instruction and self.instructed_query else self.query
        return fill(template, query=query, instruction=instruction)

    @property
    def takes_instruction(self) -> bool:
        """Whether a record may have an instruction of its own: the query's text then has a slot for it."""
        slots = [slot for _, slot in pieces_of(self.query + (self.instructed_query or ""))]
        return self.own_instructions and "instruction" in slots

    def passage_text(self, passage: str) -> str:
        """The text tokenized for a passage."""
        passage = passage.strip() if self.strips else passage
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
    """Token limits: `max_length` as requested, the query's own, and `room` for query and passage together.

    `closing` is the number of tokens that end a passage even if all others of it are cut.
    """

    max_length: int
    query_max_length: int
    room: int
    cut: Cut = Cut.PASSAGE
    closing: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """Number of tokens kept of each query and passage, [n] each."""

    query: Lengths
    passage: Lengths


def fit_lengths(query: Lengths, passage: Lengths, limits: Limits) -> Fit:
    """Reduce token counts, [n] each, so that query and passage fit `limits.room`.

    Sources: bge-reranker "only_second" truncation, FlagEmbedding 1.4; `LongestFirst` of tokenizers 0.22,
    `utils/truncation.rs`.
    """
    room = limits.room
    kept_query = np.minimum(query, limits.query_max_length)
    if limits.cut is Cut.END:
        kept_query = np.minimum(kept_query, room - min(limits.closing, room))
        return Fit(kept_query, np.minimum(passage, room - kept_query))
    if limits.cut is Cut.LONGEST:
        kept_query = query if limits.query_max_length >= limits.max_length else kept_query
        shorter, longer = np.minimum(kept_query, passage), np.maximum(kept_query, passage)
        left = np.where(shorter > room, shorter, np.maximum(shorter, room - shorter))
        both = shorter + left > room
        shorter, left = np.where(both, room // 2, shorter), np.where(both, room - room // 2, left)
        left = np.minimum(left, longer)
        swapped = kept_query > passage
        return Fit(np.where(swapped, left, shorter), np.where(swapped, shorter, left))
    kept_passage = np.minimum(passage, limits.max_length)
    over = kept_query + kept_passage - room
    kept_passage = np.where((over > 0) & (kept_passage > over), kept_passage - over, kept_passage)
    crowded = kept_query + kept_passage > room
    kept_passage = np.where(crowded, np.minimum(kept_passage, room // 4), kept_passage)
    kept_query = np.where(crowded, np.minimum(kept_query, room - kept_passage), kept_query)
    return Fit(kept_query, kept_passage)
