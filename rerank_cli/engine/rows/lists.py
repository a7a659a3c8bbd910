"""Lists of passages to rows of a listwise model: truncate the texts, divide the list into windows, write the prompts.

A row is one whole list, so that its scores depend on nothing else: not on the size of chunks, nor on other lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import PairTexts, PlannedRow, Prepared
from rerank_cli.engine.rows.windows import Windows
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.lists import ListRule, prompt_of
from rerank_cli.models.prompts.pairs import Ids, Limits
from rerank_cli.models.prompts.tokens import TextTokenizer


@dataclass(frozen=True, slots=True)
class ListTokenizer:
    """How lists become rows. `limits` are those of one query and of one passage."""

    tokenizer: TextTokenizer
    rule: ListRule
    limits: Limits


@dataclass(frozen=True, slots=True)
class _Cut:
    """A text as it is read: `tokens` of it, and whether others are cut off."""

    text: str
    tokens: int
    truncated: bool


def prepare_lists(pairs: PairTexts, reader: ListTokenizer) -> Prepared:
    """One row for each distinct list, in order; pairs that are in no list are lists of their own. Deterministic."""
    distinct, places = pairs.distinct_lists()
    queries = list(dict.fromkeys(distinct.queries))
    passages = list(dict.fromkeys(distinct.passages))
    ids = reader.tokenizer.encode([*queries, *passages], reader.limits.max_length + reader.limits.query_max_length)
    of_query, of_passage = (dict(zip(*texts, strict=True)) for texts in (
        (queries, ids[: len(queries)]), (passages, ids[len(queries) :])
    ))  # fmt: skip
    rows = []
    tokens, truncated = np.zeros(len(distinct), dtype=np.int64), np.zeros(len(distinct), dtype=np.bool_)
    for members in distinct.lists_of():
        query_text = distinct.queries[members.start]
        query = _cut(query_text, of_query[query_text], reader.limits.query_max_length, reader.tokenizer)
        caps = [min(reader.limits.max_length, cap or reader.limits.max_length) for cap in distinct.caps[members]]
        read = [
            _cut(text, of_passage[text], cap, reader.tokenizer)
            for text, cap in zip(distinct.passages[members], caps, strict=True)
        ]
        instruction = distinct.instructions[members.start] if distinct.instructions else None
        row = _row(query, read, instruction, reader)
        tokens[members] = _tokens(row, read)
        truncated[members] = [query.truncated or text.truncated for text in read]
        rows.append(PlannedRow(row, np.arange(members.start, members.stop)))
    windows = Windows.one_each(tokens[places])
    return Prepared(rows, places, windows, tokens[places], truncated[places], len(queries) + len(passages))


def _cut(text: str, ids: Ids, limit: int, tokenizer: TextTokenizer) -> _Cut:
    """A text that reaches the limit is written from its tokens again, as the published code does."""
    if len(ids) < limit:
        return _Cut(text, len(ids), truncated=False)
    return _Cut(tokenizer.text(ids[:limit]), limit, truncated=len(ids) > limit)


def _row(query: _Cut, read: Sequence[_Cut], instruction: str | None, reader: ListTokenizer) -> TokenRow:
    rule = reader.rule
    windows = rule.windows([text.tokens for text in read], query.tokens, reader.limits.max_length)
    prompts = [prompt_of(query.text, [text.text for text in read[window]], instruction) for window in windows]
    ids = reader.tokenizer.once(prompts)
    lengths, counts = (
        np.array(values, dtype=np.int64)
        for values in ([len(window) for window in ids], [window.stop - window.start for window in windows])
    )
    flat = np.concatenate(ids)
    return TokenRow(flat, np.zeros_like(flat), lengths, passages=counts)


def _tokens(row: TokenRow, read: Sequence[_Cut]) -> Index:
    """The row's tokens by passage: its own, and for the first of a window the query and the prompt too."""
    found = np.array([text.tokens for text in read], dtype=np.int64)
    counts = row.passages if row.passages is not None else np.array([len(read)])
    firsts = np.cumsum(counts) - counts
    found[firsts] += row.lengths - np.add.reduceat(found, firsts)
    return found
