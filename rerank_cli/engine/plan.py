"""Which pairs share a packed row, and which of them a beginning.

Sorted by true token length over all pairs given, longest first (so that a row too large for the device shows at once),
and cut where the token budget is reached. Depends on lengths and budget alone, so a plan can be made again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
