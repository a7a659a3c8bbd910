"""Pairs of texts to packed rows: tokenize each distinct text once, drop duplicate pairs, sort by length.

Runs on a background thread while the device scores earlier pairs. Needs the model's tokenizer and limits only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, repeat
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.rows.plan import Index, pack, pack_causal, plan_rows, plan_shared, row_budget
from rerank_cli.engine.rows.windows import PassageRule, Windows
from rerank_cli.errors import UsageError
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import Fit, Ids, Limits, PairRule, PairTemplate, fit_lengths
from rerank_cli.models.prompts.tokens import TextTokenizer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PairTexts:
    """n pairs to score. `caps` is the maximum number of tokens of each passage, 0 if it has none of its own.

    `instructions` is empty, or holds for each query the record's own instruction, None if the record has none. `lists`
    is empty, or holds for each pair the number of its list, the candidates of one record: for models that score lists.
    """

    queries: Sequence[str]
    passages: Sequence[str]
    caps: Sequence[int]
    instructions: Sequence[str | None] = ()
    lists: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.queries)

    def distinct(self) -> tuple[PairTexts, Index]:
        """The distinct pairs in order of first appearance, and each pair's index among them."""
        keys = zip(self.queries, self.passages, self.caps, self.instructions or repeat(None), strict=False)
        indices, seen = _number(keys)
        queries, passages, caps, instructions = zip(*seen, strict=True) if seen else ((), (), (), ())
        return PairTexts(queries, passages, caps, instructions), indices

    def lists_of(self) -> list[slice]:
        """The pairs of each list, which are adjacent; each pair alone if they are in no list."""
        numbers = self.lists or range(len(self))
        starts = [place for place in range(len(self)) if place == 0 or numbers[place] != numbers[place - 1]]
        return [slice(*ends) for ends in pairwise([*starts, len(self)])]

    def distinct_lists(self) -> tuple[PairTexts, Index]:
        """The pairs of distinct lists, in order of first appearance, and each pair's index among them."""
        seen: dict[tuple[Any, ...], int] = {}
        taken: list[slice] = []
        count, places = 0, np.empty(len(self), dtype=np.int64)
        for members in self.lists_of():
            query, instruction = self.queries[members.start], self.instructions[members.start : members.start + 1]
            key = (query, *instruction, tuple(self.passages[members]), tuple(self.caps[members]))
            size = members.stop - members.start
            if key not in seen:
                seen[key] = count
                count += size
                taken.append(members)
            places[members] = seen[key] + np.arange(size)
        return self.take(np.concatenate([np.zeros(0, np.int64), *(np.r_[members] for members in taken)])), places

    def part(self, start: int, end: int) -> PairTexts:
        """Pairs `start` to `end`."""
        place = slice(start, end)
        return PairTexts(
            self.queries[place], self.passages[place], self.caps[place], self.instructions[place], self.lists[place]
        )

    def take(self, places: Index) -> PairTexts:
        """The pairs at these indices."""
        chosen = places.tolist()
        queries, passages, caps, instructions, lists = (
            [values[place] for place in chosen] if values else ()
            for values in (self.queries, self.passages, self.caps, self.instructions, self.lists)
        )
        return PairTexts(queries, passages, caps, instructions, lists)


@dataclass(frozen=True, slots=True)
class PairTokenizer:
    """How texts become token ids. With `share`, sequences of a row that begin alike share their prefix."""

    tokenizer: TextTokenizer
    rule: PairRule
    limits: Limits
    passage_rule: PassageRule = field(default_factory=PassageRule)
    share: bool = False


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row and the indices of its distinct pairs, in the row's order."""

    row: TokenRow
    pairs: Index


@dataclass(frozen=True, slots=True)
class Prepared:
    """n pairs ready to score: k passages of their documents as m distinct sequences.

    `distinct` [k] is the index of each passage's sequence. `windows` maps passages to pairs; k is n unless documents
    are split into passages. `spans` are the characters (start, end) of each passage in its document, int64 [k, 2], or
    None unless documents are split. `tokens` and `truncated` are [n]; `texts` is the number of distinct texts.
    """

    rows: Sequence[PlannedRow]
    distinct: Index
    windows: Windows
    tokens: Index
    truncated: npt.NDArray[np.bool_]
    texts: int
    spans: Index | None = None

    @property
    def distinct_pairs(self) -> int:
        return sum(len(row.pairs) for row in self.rows)


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """n pairs tokenized and fitted: ids of distinct texts, each pair's index among those, and the tokens it keeps.

    `documents` [n] are passage tokens within the cap, `lengths` [n] tokens of whole pairs before truncation, specials
    included; `cut_queries` [n] marks truncated queries.
    """

    query_ids: Sequence[Ids]
    passage_ids: Sequence[Ids]
    query_of: Index
    passage_of: Index
    passages: Sequence[str]
    kept: Fit
    documents: Index
    lengths: Index
    cut_queries: npt.NDArray[np.bool_]


def tokenize_pairs(pairs: PairTexts, tokenizer: PairTokenizer, *, whole: bool = False) -> TokenizedPairs:
    """Tokenize each distinct text once and fit every pair to the limits.

    Unless `whole`, only the beginning of a text far beyond the limits is tokenized, and its length is that of the
    beginning. Raises UsageError if a record has an instruction and the profile has no place for it.
    """
    rule, limits = tokenizer.rule, tokenizer.limits
    if not rule.takes_instruction and any(pairs.instructions):
        raise UsageError("a record has an instruction, but the profile has no {instruction}. Fix: --profile with it")
    whole = whole or tokenizer.passage_rule.reads_all or rule.template.keeps_end
    query_of, queries = _number(zip(pairs.queries, pairs.instructions or repeat(None), strict=False))
    passage_of, passages = _number(pairs.passages)
    texts = [rule.query_text(*query) for query in queries] + [rule.passage_text(passage) for passage in passages]
    ids = tokenizer.tokenizer.encode(texts, None if whole else limits.max_length)
    query_ids, passage_ids = ids[: len(queries)], ids[len(queries) :]
    caps = np.array(pairs.caps, dtype=np.int64)
    query, passage = _lengths(query_ids)[query_of], _lengths(passage_ids)[passage_of]
    documents = np.where(caps > 0, np.minimum(passage, caps), passage)
    kept = fit_lengths(query, documents, limits)
    lengths = query + passage + rule.template.specials
    cut = kept.query < query
    return TokenizedPairs(query_ids, passage_ids, query_of, passage_of, passages, kept, documents, lengths, cut)


def prepare(
    pairs: PairTexts, tokenizer: PairTokenizer, batch_tokens: int, *, padded: bool = False, least_rows: int = 1
) -> Prepared:
    """Tokenize, truncate, split documents into passages, deduplicate and plan rows; deterministic.

    Pairs with few tokens still make `least_rows` rows, unless the rows would be very short or share prefixes.
    """
    rule, passage_rule = tokenizer.rule, tokenizer.passage_rule
    found = tokenize_pairs(pairs, tokenizer)
    template, kept = rule.template, found.kept
    windows = passage_rule.cut(found.documents, kept.passage, len(template.passage_head))
    if template.keeps_end and not passage_rule.in_passages:
        windows = replace(windows, start=found.documents - windows.length)
    pair = windows.document
    query, kept_query = found.query_of[pair], kept.query[pair]
    keys = np.stack((query, found.passage_of[pair], kept_query, windows.start, windows.length), axis=1)
    _, first, distinct = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    tokens = kept_query + windows.heads + windows.length + template.specials
    if tokenizer.share and rule.shares_prefix:
        # A group is the first text as far as it is kept; its sequences share everything before the second.
        passage = found.passage_of[pair], windows.start, windows.length
        text, _ = template.in_order(np.stack((query, kept_query), axis=1), np.stack(passage, axis=1))
        _, inverse = np.unique(text[first], axis=0, return_inverse=True)
        groups = inverse.reshape(-1).astype(np.int64)
        shared, _ = template.in_order(kept_query, windows.heads + windows.length)
        prefixes = shared[first] + len(template.prefix) + len(template.middle)
        plan = plan_shared(tokens[first], groups, prefixes, batch_tokens)
    else:
        budget = row_budget(tokens[first], batch_tokens, least_rows)
        groups, plan = np.arange(len(first)), plan_rows(tokens[first], budget, padded=padded)
    rows = []
    for members in plan:
        sequences = _sequences(found, windows, first[members], template)
        row = pack_causal(sequences, template, groups[members]) if rule.shares_prefix else pack(sequences, template)
        rows.append(PlannedRow(row, members))
    read = found.documents if passage_rule.reads_all else kept.passage
    return Prepared(
        rows,
        distinct.reshape(-1).astype(np.int64),
        windows,
        np.bincount(pair, weights=tokens, minlength=len(pairs)).astype(np.int64),
        found.cut_queries | (read < _lengths(found.passage_ids)[found.passage_of]),
        len(found.query_ids) + len(found.passage_ids),
        _spans(found, windows, tokenizer) if passage_rule.in_passages else None,
    )


def _spans(found: TokenizedPairs, windows: Windows, tokenizer: PairTokenizer) -> Index:
    """The characters (start, end) of each passage in its document's text, [k, 2]."""
    whole = np.bincount(windows.document, minlength=len(found.documents)) == 1
    whole &= found.kept.passage >= _lengths(found.passage_ids)[found.passage_of]
    spans = np.zeros((len(windows.document), 2), dtype=np.int64)
    offsets: dict[int, Index] = {}
    for place, (pair, start, length) in enumerate(zip(windows.document, windows.start, windows.length, strict=True)):
        number = int(found.passage_of[pair])
        text = found.passages[number]
        if whole[pair]:
            spans[place] = 0, len(text)
        elif length:
            if number not in offsets:
                in_prompt = tokenizer.tokenizer.offsets(tokenizer.rule.passage_text(text))
                dropped = len(text) - len(text.lstrip()) if tokenizer.rule.strips else 0
                offsets[number] = in_prompt - len(tokenizer.rule.passage_lead) + dropped
            span = offsets[number][start, 0], offsets[number][start + length - 1, 1]
            spans[place] = np.clip(span, 0, len(text))
    return spans


def _sequences(found: TokenizedPairs, windows: Windows, chosen: Index, template: PairTemplate) -> list[tuple[Ids, Ids]]:
    """Query and passage ids of the chosen passages, truncated."""
    pairs, starts = windows.document[chosen], windows.start[chosen]
    arrays = (found.query_of[pairs], found.kept.query[pairs], found.passage_of[pairs], starts)
    numbers = (array.tolist() for array in (*arrays, starts + windows.length[chosen]))
    return [
        (
            template.clip_query(found.query_ids[query], kept),
            template.part_of_passage(found.passage_ids[passage], start, end),
        )
        for query, kept, passage, start, end in zip(*numbers, strict=True)
    ]


def _number(items: Iterable[T]) -> tuple[Index, list[T]]:
    """Each item's index among the distinct items, and those in order of first appearance."""
    seen: dict[T, int] = {}
    numbers = [seen.setdefault(item, len(seen)) for item in items]
    return np.array(numbers, dtype=np.int64), list(seen)


def _lengths(ids: Sequence[Ids]) -> Index:
    return np.array([len(text) for text in ids], dtype=np.int64)
