"""A listwise reranker: jina-reranker-v3, which reads a query after all its passages ("last but not late interaction").

The stock Qwen3 backbone runs over one window of a list at a time. The states at the mark after each passage and at the
mark after the query go through a projection, and the score of a passage is the cosine of both. In a list of several
windows, the query is the mean of its projections, weighted by (1 + c) / 2 of the best cosine c in each window.
Source: `JinaForRanking` in `modeling.py` of `jinaai/jina-reranker-v3`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, relu
from transformers import AutoModel, PreTrainedModel

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.causal import positions_of
from rerank_cli.models.inputs import Placement, to_device
from rerank_cli.models.loading import load_stock
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.lists import ListRule
from rerank_cli.models.prompts.pairs import Ids
from rerank_cli.models.tensors import TensorFiles

_PROJECTION = ("projector.0.weight", "projector.2.weight")
_PREFIX, _UNUSED = "model.", "lm_head.weight"  # of the language model that the backbone was


def load_listwise(checkpoint: Checkpoint, placement: Placement, rule: ListRule) -> ListModel:
    """The backbone with its projection, which is computed in fp32.

    Raises ModelError if a tensor is missing, has no place, or has a shape that does not fit the others.
    """
    files = TensorFiles(checkpoint)
    inner, outer = (files.read(name).float().to(placement.device) for name in _PROJECTION)
    backbone = load_stock(AutoModel, checkpoint, placement, None)
    known = {f"{_PREFIX}{name}" for name in backbone.state_dict()} | {*_PROJECTION, _UNUSED}
    unknown = sorted(set(files.names) - known)
    if unknown:
        what = f"{len(unknown)} tensors have no place in a listwise model ({', '.join(unknown[:3])}, …)"
        raise ModelError(f"{checkpoint.name}: {what}")
    shapes = [tuple(weight.shape) for weight in (inner, outer)]
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != backbone.config.hidden_size:
        raise ModelError(f"{checkpoint.name}: {_PROJECTION[0]} has the shape {shapes[0]}, the states do not fit it")
    if shapes[1][1] != shapes[0][0]:
        raise ModelError(f"{checkpoint.name}: {_PROJECTION[1]} has the shape {shapes[1]}, after one of {shapes[0]}")
    return ListModel(backbone, placement.device, Projection(inner, outer), rule)


@dataclass(frozen=True, slots=True)
class Projection:
    """Two linear layers without biases and a ReLU between them, fp32: states [m, H] to vectors [m, D]."""

    inner: Tensor
    outer: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        found: Tensor = relu(states.float() @ self.inner.T) @ self.outer.T
        return found


class ListModel:
    """Scores whole lists, see `families.CrossEncoder`: a row is one list, and a window of it one sequence."""

    packed = True
    layers: tuple[int, ...] = ()

    def __init__(self, backbone: PreTrainedModel, device: torch.device, project: Projection, rule: ListRule) -> None:
        self.parameters = backbone.num_parameters() + project.inner.numel() + project.outer.numel()
        self.max_positions = positions_of(backbone.config)
        self.backbone = backbone
        self._device = device
        self._project = project
        self._rule = rule
        kinds = set(getattr(backbone.config, "layer_types", None) or ())
        # A window is one causal sequence. Left to itself, the stock model would ask the device whether it is several.
        self._masks = {"full_attention": None} if kinds == {"full_attention"} else None

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        """Cosines of all passages of the list, fp32 [n]."""
        queries, passages, weights = [], [], []
        for start, length in zip(row.starts.tolist(), row.lengths.tolist(), strict=True):
            vectors = self._read(row.ids[start : start + length])
            query, found = vectors[-1], vectors[:-1]
            queries.append(query)
            passages.append(found)
            weights.append((1 + cosine_similarity(found, query[None])).max() / 2)
        share, every = torch.stack(weights), torch.cat(passages)
        query = (torch.stack(queries) * share[:, None]).sum(dim=0) / share.sum()
        cosines: Tensor = (every @ query) / (every.norm(dim=1) * query.norm())
        return cosines

    def _read(self, ids: Ids) -> Tensor:
        """The vectors of the window's passages and of its query, which is the last."""
        marked = np.flatnonzero((ids == self._rule.passage_mark) | (ids == self._rule.query_mark))
        sent = to_device(ids[None].astype(np.int64), self._device)
        found = self.backbone(input_ids=sent, attention_mask=self._masks, use_cache=False)
        states: Tensor = found.last_hidden_state[0, to_device(marked, self._device)]
        return self._project(states)

    def computed(self, row: TokenRow) -> int:
        return row.tokens
