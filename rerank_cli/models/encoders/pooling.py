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
    lengths, counts = ends - begins, ends - starts
    # "unsafe" skips a check of the lengths that would have to wait for the device.
    if mode in {"mean", "max"} and all_of:
        return torch.segment_reduce(states, mode, lengths=lengths, axis=0, unsafe=True)
    # Every token has a weight, and those of the prompt have none: how many they are is not known on the host.
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=states.device), lengths, output_size=len(states))
    place = torch.arange(len(states), device=states.device)
    prompt = (place < starts[owner])[:, None]
    if mode == "max":
        states = states.masked_fill(prompt, -torch.inf)
        return torch.segment_reduce(states, mode, lengths=lengths, axis=0, unsafe=True)
    states = states.masked_fill(prompt, 0)
    if mode == "weightedmean":
        weights = (place - begins[owner] + 1).float()[:, None].masked_fill(prompt, 0)
        total = torch.segment_reduce(states * weights, "sum", lengths=lengths, axis=0, unsafe=True)
        return total / torch.segment_reduce(weights, "sum", lengths=lengths, axis=0, unsafe=True)
    total = torch.segment_reduce(states, "sum", lengths=lengths, axis=0, unsafe=True)
    divisor = counts[:, None].float()
    return total / (divisor if mode == "mean" else divisor.sqrt())
