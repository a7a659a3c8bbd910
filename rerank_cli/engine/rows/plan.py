"""Plans packed rows: which pairs share a row, and which of them share a prefix.

All pairs are sorted by token length, longest first (a row too large for the device fails at once), and cut where the
token budget is reached. A plan depends only on lengths and budget, so it can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import Ids, PairTemplate

Index = npt.NDArray[np.int64]

_SMALLEST = 512  # tokens; smaller rows cost more to start than they save


def row_budget(lengths: Index, most: int, rows: int) -> int:
    """Tokens per row: `most`, or fewer if sequences of these lengths would otherwise fill fewer than `rows` rows."""
    return min(most, max(_SMALLEST, -(-int(lengths.sum()) // rows)))


def plan_rows(lengths: Index, budget: int, *, padded: bool = False) -> list[Index]:
    """Cut pairs of these token lengths, [m], into rows of at most `budget` tokens, at least one pair each.

    With `padded` a row costs its longest sequence times its number of sequences.
    """
    order = np.argsort(-lengths, kind="stable")
    before = np.concatenate(([0], np.cumsum(lengths[order])))  # tokens before each pair
    rows, start = [], 0
    while start < len(order):
        if padded:
            stop = start + max(1, budget // max(1, int(lengths[order[start]])))
        else:
            stop = max(start + 1, int(np.searchsorted(before, before[start] + budget, side="right")) - 1)
        rows.append(order[start:stop])
        start = stop
    return rows


def plan_shared(lengths: Index, groups: Index, prefixes: Index, budget: int) -> list[Index]:
    """Cut pairs into rows where the pairs of a group share a prefix, which a row holds once.

    `lengths`, [m], are the tokens of whole sequences, `groups` [m] the number of the pair's group, `prefixes` [m] the
    tokens that its group shares. Groups stay together, the one with the longest pair first; pairs in a group too.
    """
    if not len(lengths):
        return []
    longest = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    np.maximum.at(longest, groups, lengths)
    order = np.lexsort((-lengths, groups, -longest[groups]))
    rows, start, spent, last = [], 0, 0, -1
    ordered = zip(lengths[order].tolist(), groups[order].tolist(), prefixes[order].tolist(), strict=True)
    for place, (length, group, prefix) in enumerate(ordered):
        cost = length - prefix if group == last else length
        if place > start and spent + cost > budget:
            rows.append(order[start:place])
            start, spent, cost = place, 0, length
        spent, last = spent + cost, group
    return [*rows, order[start:]]


def pack(sequences: Sequence[tuple[Ids, Ids]], template: PairTemplate) -> TokenRow:
    """Join (query ids, passage ids) pairs, already truncated, into one packed row."""
    pieces: list[Ids] = []
    for pair in sequences:
        first, second = template.in_order(*pair)
        pieces += (template.prefix, first, template.middle, second, template.suffix)
    sizes = np.array([(len(query), len(passage)) for query, passage in sequences], dtype=np.int64)
    ids = np.concatenate(pieces)
    before, between, after = template.special_types
    pattern = np.array([*before, template.query_type, *between, template.passage_type, *after], dtype=np.int32)
    types = np.zeros_like(ids)
    if pattern.any():
        counts = np.ones((len(sizes), len(pattern)), dtype=np.int64)
        counts[:, len(before)] = sizes[:, 0]
        counts[:, len(before) + 1 + len(between)] = sizes[:, 1]
        types = np.repeat(np.tile(pattern, len(sizes)), counts.ravel())
    return TokenRow(ids, types, sizes.sum(axis=1) + template.specials)


def pack_causal(sequences: Sequence[tuple[Ids, Ids]], template: PairTemplate, groups: Index) -> TokenRow:
    """Like `pack`, for a causal model: adjacent sequences of one group share their prefix, with the first text.

    With a template that has the passage first, that is the first text.
    """
    pieces: list[Ids] = []
    lengths: list[int] = []
    parents: list[int] = []
    second_at: list[int] = []
    prefix, last, parent = template.prefix, -1, -1
    following = [*groups[1:].tolist(), -1]
    for pair, group, next_group in zip(sequences, groups.tolist(), following, strict=True):
        first, second = template.in_order(*pair)
        if group != last:
            prefix, last, parent = np.concatenate((template.prefix, first, template.middle)), group, -1
            if next_group == group:
                parent = len(lengths)
                pieces.append(prefix)
                lengths.append(len(prefix))
                parents.append(-1)
                second_at.append(len(prefix))
        own = (second, template.suffix) if parent >= 0 else (prefix, second, template.suffix)
        pieces += own
        lengths.append(sum(map(len, own)))
        parents.append(parent)
        second_at.append(0 if parent >= 0 else len(prefix))
    ids = np.concatenate(pieces)
    sizes, before, at = (np.array(values, dtype=np.int64) for values in (lengths, parents, second_at))
    return TokenRow(ids, np.zeros_like(ids), sizes, before, at, closing=len(template.suffix))
