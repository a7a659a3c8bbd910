"""Query and passage ids, cut to length, to packed rows: each by itself, or with beginnings that are shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.plan import Index
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import Ids, PairTemplate


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
