"""Rerankers that score from chosen layers: bge-reranker-v2-minicpm-layerwise and -v2.5-gemma2-lightweight.

Both are stock blocks with a scalar head a layer. This module drives the blocks of a packed row up to the topmost layer
asked for; lower ones give scores on the way. Layers above are neither loaded nor run. A lightweight model may merge
neighbouring passage states on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rerank_cli.errors import UsageError
from rerank_cli.models.answer_head import AnswerHead
from rerank_cli.models.decoders.causal import positions_of
from rerank_cli.models.inputs import Packing, model_inputs, to_device
from rerank_cli.models.packed_row import TokenRow


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Layers that give a score, ascending: layer k is the state after k blocks. `depth` is the full model's."""

    layers: tuple[int, ...]
    depth: int

    @property
    def top(self) -> int:
        return self.layers[-1]


def choose_cutoffs(asked: Sequence[int] | None, known: Sequence[int], where: str) -> Cutoffs:
    """`--cutoff-layers`, sorted and without repetition; all of the depth by default."""
    depth = max(known)
    layers = tuple(sorted(set(asked))) if asked else (depth,)
    for layer in layers:
        if layer not in known:
            raise UsageError(f"--cutoff-layers {layer}: {where} has heads for layers {min(known)} to {depth}")
    return Cutoffs(layers, depth)


@dataclass(frozen=True, slots=True)
class Compression:
    """Before each of these blocks, groups of `ratio` neighbouring passage states become their mean."""

    layers: frozenset[int] = frozenset()
    ratio: int = 1

    def at(self, block: int) -> bool:
        """Block 0 is never one: the reference takes it for "off"."""
        return self.ratio > 1 and block > 0 and block in self.layers


class LayeredDecoder:
    """Feeds one packed row through a stock Llama or Gemma 2 backbone that has the blocks up to the top cutoff alone.

    `heads` has one head a cutoff layer, in their order.
    """

    packed = True

    def __init__(
        self,
        backbone: PreTrainedModel,
        device: torch.device,
        cutoffs: Cutoffs,
        heads: Sequence[AnswerHead],
        compression: Compression | None = None,
    ) -> None:
        self.parameters = backbone.num_parameters()
        self.max_positions = positions_of(backbone.config)
        self.layers = cutoffs.layers
        self._backbone = cast("Any", backbone)
        self._device = device
        self._heads = dict(zip(cutoffs.layers, heads, strict=True))
        self._compression = compression or Compression()

    @property
    def backbone(self) -> nn.Module:
        return cast("nn.Module", self._backbone)

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        """fp32 [n] for one cutoff layer, [n, layers] for several."""
        backbone, top = self._backbone, self.layers[-1]
        inputs = model_inputs(row, self._device, causal=True)
        states = backbone.embed_tokens(inputs.ids)
        packing, rotary = inputs.packing, backbone.rotary_emb(states, inputs.positions)
        found = []
        for block in range(top + 1):
            if block in self._heads:
                found.append(self._heads[block](backbone.norm(states[0, packing.score_at])))
            if block == top:
                break
            if self._compression.at(block):
                row, states = compress(row, states, self._compression.ratio)
                inputs = model_inputs(row, self._device, causal=True)
                packing, rotary = inputs.packing, backbone.rotary_emb(states, inputs.positions)
            states = _states(self._run(backbone.layers[block], states, rotary, packing))
        return found[0] if len(found) == 1 else torch.stack(found, dim=1)

    def _run(self, layer: Any, states: Tensor, rotary: tuple[Tensor, Tensor], packing: Packing) -> Any:
        return layer(states, attention_mask=None, position_embeddings=rotary, packing=packing)

    def computed(self, row: TokenRow) -> int:
        return row.tokens


class PlainLayeredDecoder(LayeredDecoder):
    """The same one sequence at a time with transformers' own attention and a mask, to compare with."""

    packed = False

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        row = row.unshared()
        return torch.cat(
            [super(PlainLayeredDecoder, self).score(row.take(np.array([n]))) for n in range(row.sequences)]
        )

    def _run(self, layer: Any, states: Tensor, rotary: tuple[Tensor, Tensor], _packing: Packing) -> Any:
        places = torch.arange(states.shape[1], device=states.device)
        distance = places[:, None] - places
        hidden = distance < 0
        window = getattr(layer.self_attn, "sliding_window", None)
        if window is not None:
            hidden |= distance >= window
        mask = torch.zeros(hidden.shape, dtype=states.dtype, device=states.device)
        mask.masked_fill_(hidden, torch.finfo(states.dtype).min)
        return layer(states, attention_mask=mask[None, None], position_embeddings=rotary)


def _states(found: Any) -> Tensor:
    """A block gives its states, in older versions of transformers as the first of a tuple."""
    return cast("Tensor", found[0] if isinstance(found, tuple) else found)


def compress(row: TokenRow, states: Tensor, ratio: int) -> tuple[TokenRow, Tensor]:
    """Merge passage states [1, T, H] in groups of `ratio`, the last group maybe smaller; query and prompt stay.

    Positions begin anew over what is left. Source: `token_compress` of bge-reranker-v2.5-gemma2-lightweight.
    """
    assert row.passage_at is not None
    lengths, begin = row.lengths, row.passage_at
    passage = np.maximum(lengths - begin - np.where(begin < lengths, row.closing, 0), 0)
    groups = -(-passage // ratio)
    kept = lengths - passage + groups
    index = np.arange(row.tokens) - np.repeat(row.starts, lengths)
    first, last = np.repeat(begin, lengths), np.repeat(begin + passage, lengths)
    merged = np.where(index < first, index, first + (index - first) // ratio)
    place = np.where(index < last, merged, index - np.repeat(passage - groups, lengths))
    target = place + np.repeat(np.cumsum(kept) - kept, lengths)
    size = np.bincount(target, minlength=int(kept.sum()))
    device = states.device
    summed = torch.zeros((len(size), states.shape[2]), dtype=torch.float32, device=device)
    summed.index_add_(0, to_device(target, device), states[0].float())
    mean = summed / to_device(size.astype(np.float32), device)[:, None]
    firsts = np.flatnonzero(np.diff(target, prepend=-1))
    shorter = replace(row, ids=row.ids[firsts], types=row.types[firsts], lengths=kept)
    return shorter, mean.to(states.dtype)[None]
