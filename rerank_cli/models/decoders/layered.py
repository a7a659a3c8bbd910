"""Rerankers with a head for each of several layers: bge-reranker-v2-minicpm-layerwise, -v2.5-gemma2-lightweight.

Both are stock blocks with a scalar head per layer. A packed row runs through the blocks up to the highest requested
layer; lower requested layers give a score each on the way. Blocks above are neither loaded nor run. A lightweight model
may merge adjacent passage states between blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rerank_cli.errors import UsageError
from rerank_cli.models.answer_head import AnswerHead, head_of_tensor
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.causal import positions_of
from rerank_cli.models.inputs import Packing, model_inputs, to_device
from rerank_cli.models.loading import merge_adapter
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.tensors import TensorFiles

_SETTINGS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_parameters", "attention_bias",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Layers that give a score, ascending: layer k is the state after k blocks. `depth` is the full model's."""

    layers: tuple[int, ...]
    depth: int

    @property
    def top(self) -> int:
        return self.layers[-1]


def choose_cutoffs(requested: Sequence[int] | None, known: Sequence[int], where: str) -> Cutoffs:
    """`--cutoff-layers`, sorted and without repetition; the last layer by default."""
    depth = max(known)
    layers = tuple(sorted(set(requested))) if requested else (depth,)
    for layer in layers:
        if layer not in known:
            raise UsageError(f"--cutoff-layers {layer}: {where} has heads for layers {min(known)} to {depth}")
    return Cutoffs(layers, depth)


def stock_settings(checkpoint: Checkpoint, cutoffs: Cutoffs, *more: str) -> dict[str, Any]:
    """The settings common to both models and these, as far as config.json has them, for blocks up to the top cutoff."""
    config = checkpoint.config
    settings = {name: config[name] for name in (*_SETTINGS, *more) if config.get(name) is not None}
    return settings | {"num_hidden_layers": cutoffs.top}


@dataclass(frozen=True, slots=True)
class LayeredParts:
    """A loaded backbone and what goes with it.

    `known` are the layers that have a head, `heads` the stored name of each one's tensor; names may repeat. `cap` is
    the heads' softcap. `scales` multiply the embeddings and each block's attention and feed-forward output, and are not
    yet part of the weights.
    """

    backbone: PreTrainedModel
    cutoffs: Cutoffs
    known: Sequence[int]
    heads: Sequence[str]
    cap: float | None = None
    scales: tuple[float, float] = (1.0, 1.0)


class LayerHead(nn.Module):
    """The head of one layer: states [n, H] to fp32 scores [n]. Its weight is named as in the checkpoints."""

    def __init__(self, weight: Tensor, cap: float | None) -> None:
        super().__init__()
        self.linear_head = nn.Linear(weight.shape[1], 1, bias=False, device=weight.device)
        self.linear_head.weight = nn.Parameter(weight, requires_grad=False)
        self.cap = cap

    def forward(self, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            scores = self.linear_head(states.float())[:, 0]
            return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap


class LayeredModel(nn.Module):
    """A backbone and the heads of all its layers, under the names that their checkpoints and adapters use."""

    def __init__(self, parts: LayeredParts, checkpoint: Checkpoint, device: torch.device) -> None:
        super().__init__()
        files = TensorFiles(checkpoint)
        names = list(dict.fromkeys(parts.heads))
        made = [LayerHead(files.read(name).float().to(device), parts.cap) for name in names]
        self.model = parts.backbone
        self.lm_head = nn.ModuleList(made) if ".0." in names[0] else made[0]
        self.config = parts.backbone.config  # read by peft
        self.heads = {layer: made[names.index(name)] for layer, name in zip(parts.known, parts.heads, strict=True)}


def answer_heads(
    parts: LayeredParts, numbers: Sequence[int], checkpoint: Checkpoint, device: torch.device
) -> list[AnswerHead]:
    """The heads of these numbers among the known layers; an adapter is merged into them and into the backbone."""
    if checkpoint.adapter is None:
        files = TensorFiles(checkpoint)
        return [head_of_tensor(files, parts.heads[number], device, parts.cap) for number in numbers]
    whole = LayeredModel(parts, checkpoint, device)
    merge_adapter(whole, checkpoint)
    heads = [whole.heads[parts.known[number]] for number in numbers]
    return [AnswerHead(head.linear_head.weight.float(), cap=parts.cap) for head in heads]


@dataclass(frozen=True, slots=True)
class Compression:
    """Before each of these blocks, every `ratio` adjacent passage states are replaced by their mean."""

    layers: frozenset[int] = frozenset()
    ratio: int = 1

    def at(self, block: int) -> bool:
        """Never at block 0: in the reference implementation 0 means "off"."""
        return self.ratio > 1 and block > 0 and block in self.layers


class LayeredDecoder:
    """Runs a stock Llama or Gemma 2 backbone that has only the blocks up to the top cutoff layer.

    `heads` has one head per cutoff layer, in their order. If not `packed`, each sequence runs alone with transformers'
    own attention and a mask, as a reference.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        device: torch.device,
        cutoffs: Cutoffs,
        heads: Sequence[Callable[[Tensor], Tensor]],
        compression: Compression | None = None,
        *,
        packed: bool = True,
    ) -> None:
        self.parameters = backbone.num_parameters()
        self.max_positions = positions_of(backbone.config)
        self.layers = cutoffs.layers
        self.packed = packed
        self.backbone = backbone
        self._device = device
        self._heads = dict(zip(cutoffs.layers, heads, strict=True))
        self.compression = compression or Compression()

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        """fp32 [n] for one cutoff layer, [n, layers] for several."""
        return self.logits(row)

    def logits(self, row: TokenRow) -> Tensor:
        if self.packed:
            return self._score(row)
        row = row.unshared()
        return torch.cat([self._score(row.take(np.array([n]))) for n in range(row.sequences)])

    def _score(self, row: TokenRow) -> Tensor:
        backbone, top = cast("Any", self.backbone), self.layers[-1]
        inputs = model_inputs(row, self._device, causal=True)
        states = backbone.embed_tokens(inputs.ids)
        packing, rotary = inputs.packing, backbone.rotary_emb(states, inputs.positions)
        found = []
        for block in range(top + 1):
            if block in self._heads:
                found.append(self._heads[block](backbone.norm(states[0, packing.score_at])))
            if block == top:
                break
            if self.compression.at(block):
                row, states = compress(row, states, self.compression.ratio)
                inputs = model_inputs(row, self._device, causal=True)
                packing, rotary = inputs.packing, backbone.rotary_emb(states, inputs.positions)
            states = self._run(backbone.layers[block], states, rotary, packing)
        return found[0] if len(found) == 1 else torch.stack(found, dim=1)

    def _run(self, layer: Any, states: Tensor, rotary: tuple[Tensor, Tensor], packing: Packing) -> Tensor:
        options: dict[str, Any] = {"attention_mask": None, "packing": packing}
        if not self.packed:
            places = torch.arange(states.shape[1], device=states.device)
            distance = places[:, None] - places
            hidden = distance < 0
            window = getattr(layer.self_attn, "sliding_window", None)
            if window is not None:
                hidden |= distance >= window
            mask = torch.zeros(hidden.shape, dtype=states.dtype, device=states.device)
            options = {"attention_mask": mask.masked_fill_(hidden, torch.finfo(states.dtype).min)[None, None]}
        found = layer(states, position_embeddings=rotary, **options)
        return cast("Tensor", found[0] if isinstance(found, tuple) else found)  # a tuple in older transformers

    def computed(self, row: TokenRow) -> int:
        return row.tokens


def compress(row: TokenRow, states: Tensor, ratio: int) -> tuple[TokenRow, Tensor]:
    """Merge passage states [1, T, H] in groups of `ratio`, the last group possibly smaller; query and prompt stay.

    Positions are counted anew over the remaining states. Source: `token_compress` of
    bge-reranker-v2.5-gemma2-lightweight.
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
