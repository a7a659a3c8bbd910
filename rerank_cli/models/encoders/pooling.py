"""Pools the states of each sequence into one vector, as the pooling module of sentence-transformers does.

Source: sentence-transformers 6.2, `sentence_transformer/modules/pooling.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pooled(states: Tensor, lengths: Tensor, modes: Sequence[str], skip: int = 0) -> Tensor:
    """States [T, H] of sequences of these lengths [n], one after the other, to fp32 [n, H · modes].

    The first `skip` tokens of each sequence, those of the prompt, are left out; one that has no others is pooled whole.
    """
    ends = lengths.cumsum(0)
    begins = ends - lengths
    starts = begins + torch.where(lengths > skip, skip, 0)
    return torch.cat([_pooled(states.float(), begins, starts, ends, mode, all_of=not skip) for mode in modes], dim=-1)


def _pooled(states: Tensor, begins: Tensor, starts: Tensor, ends: Tensor, mode: str, *, all_of: bool) -> Tensor:
    """Pool the tokens `starts` to `ends` of sequences that begin at `begins`; with `all_of` these are all tokens."""
    if mode == "cls":
        return states[starts]
    if mode == "lasttoken":
        return states[ends - 1]
    counts = ends - starts
    # "unsafe" skips a check of the lengths that would have to wait for the device.
    if mode in {"mean", "max"} and all_of:
        return torch.segment_reduce(states, mode, lengths=counts, axis=0, unsafe=True)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=states.device), counts)
    place = torch.arange(len(owner), device=states.device) - (counts.cumsum(0) - counts)[owner] + starts[owner]
    if mode in {"mean", "max"}:
        return torch.segment_reduce(states[place], mode, lengths=counts, axis=0, unsafe=True)
    weights = (place - begins[owner] + 1 if mode == "weightedmean" else torch.ones_like(place)).float()[:, None]
    total = torch.segment_reduce(states[place] * weights, "sum", lengths=counts, axis=0, unsafe=True)
    divisor = torch.segment_reduce(weights, "sum", lengths=counts, axis=0, unsafe=True)
    return total / (divisor if mode == "weightedmean" else divisor.sqrt())
