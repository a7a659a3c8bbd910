"""Which pairs share a packed row, and which of them a beginning.

Sorted by true token length over all pairs given, longest first (so that a row too large for the device shows at once),
and cut where the token budget is reached. Depends on lengths and budget alone, so a plan can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import Ids, PairTemplate

Index = npt.NDArray[np.int64]

_SMALLEST = 512


def row_budget(lengths: Index, most: int, rows: int) -> int:
    """Tokens a row: `most`, or fewer where sequences of these lengths would else make fewer than so many rows.

    Fewer than 512 are not worth a row of their own.
    """
    return min(most, max(_SMALLEST, -(-int(lengths.sum()) // rows)))


def plan_rows(lengths: Index, budget: int, *, padded: bool = False) -> list[Index]:
    """Cut pairs of these token lengths, [m], into rows of at most `budget` tokens, at least one pair each.

    With `padded` a row costs its longest sequence times its sequences.
    """
    order = np.argsort(-lengths, kind="stable")
    if padded:
        return _cut_padded(order, lengths, budget)
    return _cut_packed(order, lengths, budget)


def _cut_packed(order: Index, lengths: Index, budget: int) -> list[Index]:
    ends = np.cumsum(lengths[order])
    rows, start, spent = [], 0, 0
    while start < len(order):
        stop = max(start + 1, int(np.searchsorted(ends, spent + budget, side="right")))
        rows.append(order[start:stop])
        start, spent = stop, int(ends[stop - 1])
    return rows


def _cut_padded(order: Index, lengths: Index, budget: int) -> list[Index]:
    rows, start = [], 0
    while start < len(order):
        fits = max(1, budget // max(1, int(lengths[order[start]])))
        rows.append(order[start : start + fits])
        start += fits
    return rows


def plan_shared(lengths: Index, groups: Index, beginnings: Index, budget: int) -> list[Index]:
    """Cut pairs into rows where those of one group begin alike, and a row holds that beginning once.

    `lengths`, [m], are tokens of whole sequences, `groups` [m] numbers the pair's group, `beginnings` [m] the tokens
    that all of its group share. Groups stay together, the one with the longest pair first; so do pairs in each.
    """
    if not len(lengths):
        return []
    longest = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    np.maximum.at(longest, groups, lengths)
    order = np.lexsort((-lengths, groups, -longest[groups]))
    rows, start, spent, group = [], 0, 0, -1
    walk = zip(lengths[order].tolist(), groups[order].tolist(), beginnings[order].tolist(), strict=True)
    for place, (length, mine, beginning) in enumerate(walk):
        cost = length - beginning if mine == group else length
        if place > start and spent + cost > budget:
            rows.append(order[start:place])
            start, spent, cost = place, 0, length
        spent, group = spent + cost, mine
    return [*rows, order[start:]]


def pack(sequences: Sequence[tuple[Ids, Ids]], template: PairTemplate) -> TokenRow:
    """Join (query ids, passage ids) pairs, already cut to length, into one packed row."""
    pieces: list[Ids] = []
    for query, passage in sequences:
        pieces += (template.prefix, query, template.middle, passage, template.suffix)
    sizes = np.array([(len(query), len(passage)) for query, passage in sequences], dtype=np.int64)
    ids = np.concatenate(pieces)
    return TokenRow(ids, _segments(sizes, template), sizes.sum(axis=1) + template.specials)


def pack_causal(sequences: Sequence[tuple[Ids, Ids]], template: PairTemplate, groups: Index) -> TokenRow:
    """The same for a causal model: neighbours of one group, which begin alike, share that beginning."""
    pieces: list[Ids] = []
    lengths: list[int] = []
    parents: list[int] = []
    passage_at: list[int] = []
    beginning, group, parent = template.prefix, -1, -1
    following = [*groups[1:].tolist(), -1]
    for (query, passage), mine, next_one in zip(sequences, groups.tolist(), following, strict=True):
        if mine != group:
            beginning, group, parent = np.concatenate((template.prefix, query, template.middle)), mine, -1
            if next_one == mine:
                parent = len(lengths)
                pieces.append(beginning)
                lengths.append(len(beginning))
                parents.append(-1)
                passage_at.append(len(beginning))
        own = (passage, template.suffix) if parent >= 0 else (beginning, passage, template.suffix)
        pieces += own
        lengths.append(sum(map(len, own)))
        parents.append(parent)
        passage_at.append(0 if parent >= 0 else len(beginning))
    ids = np.concatenate(pieces)
    sizes, before, at = (np.array(values, dtype=np.int64) for values in (lengths, parents, passage_at))
    return TokenRow(ids, np.zeros_like(ids), sizes, before, at, closing=len(template.suffix))


def _segments(sizes: npt.NDArray[np.int64], template: PairTemplate) -> Ids:
    """Segment ids of a row whose queries and passages have these sizes, [n, 2]."""
    before, between, after = template.special_types
    pattern = np.array([*before, template.query_type, *between, template.passage_type, *after], dtype=np.int32)
    if not pattern.any():
        return np.zeros(int(sizes.sum()) + len(sizes) * template.specials, dtype=np.int32)
    counts = np.ones((len(sizes), len(pattern)), dtype=np.int64)
    counts[:, len(before)] = sizes[:, 0]
    counts[:, len(before) + 1 + len(between)] = sizes[:, 1]
    return np.repeat(np.tile(pattern, len(sizes)), counts.ravel())
