"""Pairs of texts to packed rows: each distinct text tokenized once, exact duplicates kept once, sorted by length.

Runs on a background thread while the device works on the pairs before. Knows no model, only its tokenizer and limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.plan import Index, pack, pack_causal, plan_rows, plan_shared, row_budget
from rerank_cli.engine.windows import PassageRule, Windows
from rerank_cli.errors import UsageError
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import Fit, Ids, Limits, PairRule, PairTemplate, fit_lengths
from rerank_cli.models.prompts.tokens import TextTokenizer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PairTexts:
    """n pairs to score. `caps` is the most tokens each passage may keep, 0 for no cap of its own.

    `instructions`, if there are any, has the record's own instruction for each query, None where it has none.
    """

    queries: Sequence[str]
    passages: Sequence[str]
    caps: Sequence[int]
    instructions: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.queries)

    def distinct(self) -> tuple[PairTexts, Index]:
        """Each pair that is unlike all before it, in order, and the place of every pair among those."""
        seen: dict[tuple[str, str, int, str | None], int] = {}
        keys = zip(self.queries, self.passages, self.caps, self.instructions or repeat(None), strict=False)
        places = [seen.setdefault(key, len(seen)) for key in keys]
        queries, passages, caps, instructions = zip(*seen, strict=True) if seen else ((), (), (), ())
        return PairTexts(queries, passages, caps, instructions), np.array(places, dtype=np.int64)

    def part(self, start: int, end: int) -> PairTexts:
        """Pairs `start` to `end`."""
        place = slice(start, end)
        return PairTexts(self.queries[place], self.passages[place], self.caps[place], self.instructions[place])

    def take(self, places: Index) -> PairTexts:
        """The pairs at these places."""
        chosen = places.tolist()
        queries, passages, caps, instructions = (
            [values[place] for place in chosen] if values else ()
            for values in (self.queries, self.passages, self.caps, self.instructions)
        )
        return PairTexts(queries, passages, caps, instructions)


@dataclass(frozen=True, slots=True)
class PairReader:
    """How texts become ids: tokenizer, rule, limits, and how long documents are read.

    With `share`, equal beginnings are worked out once a row.
    """

    tokenizer: TextTokenizer
    rule: PairRule
    limits: Limits
    cutting: PassageRule = field(default_factory=PassageRule)
    share: bool = False


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row and the distinct pairs it holds, in the row's order."""

    row: TokenRow
    pairs: Index


@dataclass(frozen=True, slots=True)
class Prepared:
    """n pairs ready for the device: k passages of their documents as m distinct sequences.

    `distinct` [k] names each passage's sequence; `windows` says which passages are whose, and where nothing is read in
    passages k is n. `spans` are the characters of each passage in its document's text, int64 [k, 2], None unless long
    documents are read in passages. `tokens` and `truncated` are [n]; `texts` counts distinct texts.
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
class Measured:
    """n pairs tokenized and fitted: their texts' ids, which text each pair has, and how much of it is kept.

    `documents` [n] are tokens of the passages that may be read, `lengths` [n] tokens of whole pairs before anything is
    cut, specials included; `cut_queries` [n] marks clipped queries.
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


def measure(pairs: PairTexts, reader: PairReader, *, whole: bool = False) -> Measured:
    """Tokenize each distinct text once and fit every pair to the limits.

    Unless `whole`, a text far beyond them is tokenized in its beginning alone, and its length is that of the beginning.
    """
    rule, limits = reader.rule, reader.limits
    if not rule.takes_instruction and any(pairs.instructions):
        raise UsageError("a record has an instruction, for which the profile has no place. Fix: {instruction} in it")
    whole = whole or reader.cutting.reads_all
    query_of, queries = _number(zip(pairs.queries, pairs.instructions or repeat(None), strict=False))
    passage_of, passages = _number(pairs.passages)
    texts = [rule.query_text(*query) for query in queries] + [rule.passage_text(passage) for passage in passages]
    ids = reader.tokenizer.encode(texts, None if whole else limits.max_length)
    query_ids, passage_ids = ids[: len(queries)], ids[len(queries) :]
    caps = np.array(pairs.caps, dtype=np.int64)
    query, passage = _lengths(query_ids)[query_of], _lengths(passage_ids)[passage_of]
    documents = np.where(caps > 0, np.minimum(passage, caps), passage)
    kept = fit_lengths(query, documents, limits)
    lengths = query + passage + rule.template.specials
    return Measured(
        query_ids, passage_ids, query_of, passage_of, passages, kept, documents, lengths, kept.query < query
    )


def prepare(
    pairs: PairTexts, reader: PairReader, batch_tokens: int, *, padded: bool = False, least_rows: int = 1
) -> Prepared:
    """Tokenize, truncate, cut in passages, deduplicate and plan; deterministic in its arguments.

    Few tokens are made `least_rows` rows all the same, unless these would be very short or share their beginnings.
    """
    measured = measure(pairs, reader)
    template, kept = reader.rule.template, measured.kept
    windows = reader.cutting.cut(measured.documents, kept.passage, len(template.passage_head))
    sequences = _Sequences(measured, windows)
    first, distinct = sequences.deduplicate()
    tokens = kept.query[windows.document] + windows.heads + windows.length + template.specials
    causal = reader.rule.shares_prefix
    if reader.share and causal:
        groups, opening = _beginnings(measured, windows.document[first], template)
        plan = plan_shared(tokens[first], groups, opening, batch_tokens)
    else:
        budget = row_budget(tokens[first], batch_tokens, least_rows)
        groups, plan = np.arange(len(first)), plan_rows(tokens[first], budget, padded=padded)
    rows = []
    for members in plan:
        texts = sequences.ids(first[members], template)
        row = pack_causal(texts, template, groups[members]) if causal else pack(texts, template)
        rows.append(PlannedRow(row, members))
    read = measured.documents if reader.cutting.reads_all else kept.passage
    truncated = measured.cut_queries | (read < _lengths(measured.passage_ids)[measured.passage_of])
    return Prepared(
        rows,
        distinct,
        windows,
        np.bincount(windows.document, weights=tokens, minlength=len(pairs)).astype(np.int64),
        truncated,
        len(measured.query_ids) + len(measured.passage_ids),
        _spans(measured, windows, reader) if reader.cutting.in_passages else None,
    )


def _spans(measured: Measured, windows: Windows, reader: PairReader) -> Index:
    """Characters of each passage in the text it was taken from, [k, 2]."""
    whole = np.bincount(windows.document, minlength=len(measured.documents)) == 1
    whole &= measured.kept.passage >= _lengths(measured.passage_ids)[measured.passage_of]
    found = np.zeros((len(windows.document), 2), dtype=np.int64)
    offsets: dict[int, Index] = {}
    for place, (pair, start, length) in enumerate(zip(windows.document, windows.start, windows.length, strict=True)):
        number = int(measured.passage_of[pair])
        text = measured.passages[number]
        if whole[pair]:
            found[place] = 0, len(text)
        elif length:
            if number not in offsets:
                offsets[number] = reader.tokenizer.offsets(reader.rule.passage_text(text)) - len(
                    reader.rule.passage_lead
                )
            span = offsets[number][start, 0], offsets[number][start + length - 1, 1]
            found[place] = np.clip(span, 0, len(text))
    return found


def _beginnings(measured: Measured, pairs: Index, template: PairTemplate) -> tuple[Index, Index]:
    """The group of each of these pairs, which is its query as far as it is kept, and the tokens its group shares."""
    kept = measured.kept.query[pairs]
    _, groups = np.unique(np.stack((measured.query_of[pairs], kept), axis=1), axis=0, return_inverse=True)
    return groups.reshape(-1).astype(np.int64), kept + len(template.prefix) + len(template.middle)


@dataclass(frozen=True, slots=True)
class _Sequences:
    """k sequences, each a query and one passage of a document."""

    measured: Measured
    windows: Windows

    def ids(self, chosen: Index, template: PairTemplate) -> list[tuple[Ids, Ids]]:
        """Query and passage ids of these sequences, cut to what is kept."""
        measured, windows = self.measured, self.windows
        pairs = windows.document[chosen]
        queries = zip(measured.query_of[pairs].tolist(), measured.kept.query[pairs].tolist(), strict=True)
        starts, ends = windows.start[chosen], (windows.start + windows.length)[chosen]
        passages = zip(measured.passage_of[pairs].tolist(), starts.tolist(), ends.tolist(), strict=True)
        return [
            (
                template.clip_query(measured.query_ids[q], kept),
                template.part_of_passage(measured.passage_ids[p], start, end),
            )
            for (q, kept), (p, start, end) in zip(queries, passages, strict=True)
        ]

    def deduplicate(self) -> tuple[Index, Index]:
        """Position of the first sequence of each distinct kind, [m], and each sequence's kind, [k]."""
        measured, windows = self.measured, self.windows
        pairs = windows.document
        texts = (measured.query_of[pairs], measured.passage_of[pairs], measured.kept.query[pairs])
        keys = np.stack((*texts, windows.start, windows.length), axis=1)
        _, first, kind = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        return first.astype(np.int64), kind.reshape(-1).astype(np.int64)


def _number(texts: Iterable[T]) -> tuple[Index, list[T]]:
    """Each text's number among the distinct ones, in order of first appearance, and those."""
    seen: dict[T, int] = {}
    numbers = [seen.setdefault(text, len(seen)) for text in texts]
    return np.array(numbers, dtype=np.int64), list(seen)


def _lengths(ids: Sequence[Ids]) -> Index:
    return np.array([len(text) for text in ids], dtype=np.int64)
