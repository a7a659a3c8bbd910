"""A BERT-like encoder over packed rows, and the head of its classifier.

Modules have the names that transformers gives them, and operators its order, so that scores have the same bits.
Sources: Devlin et al., "BERT" (arXiv 1810.04805); transformers 5.23, `modeling_bert.py`, `modeling_xlm_roberta.py`.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from rerank_cli.models.attention.packed import packed_attention
from rerank_cli.models.encoders.bert.shape import BertShape
from rerank_cli.models.inputs import Packing
from rerank_cli.models.reading.labels import Label, score_of


class Encoded(NamedTuple):
    """States of the last layer: [1, T, H], or [1, n, H] if it is trimmed."""

    last_hidden_state: Tensor


class BertEncoder(nn.Module):
    """Token ids, positions and segment ids, integers [1, T], to states [1, T, H]."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.config = shape
        self.embeddings = Embeddings(shape)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(BertLayer(shape) for _ in range(shape.num_hidden_layers))

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, *, packing: Packing
    ) -> Encoded:
        states = self.embeddings(input_ids, position_ids, token_type_ids)
        for layer in cast("nn.ModuleList", self.encoder.layer):
            states = layer(states, packing=packing)
        return Encoded(states)


class Embeddings(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        width, padding = shape.hidden_size, shape.pad_token_id if shape.is_roberta else None
        self.word_embeddings = nn.Embedding(shape.vocab_size, width)
        self.position_embeddings = nn.Embedding(shape.max_position_embeddings, width, padding_idx=padding)
        self.token_type_embeddings = nn.Embedding(shape.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=shape.layer_norm_eps)

    def forward(self, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        """Without `types` all tokens are of segment 0."""
        segments = self.token_type_embeddings.weight[0] if types is None else self.token_type_embeddings(types)
        return cast(
            "Tensor", self.LayerNorm(self.word_embeddings(ids) + segments + self.position_embeddings(positions))
        )


class BertLayer(nn.Module):
    """Attention and feed-forward, each added to its input and normalized: states [1, T, H] to [1, T, H]."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.intermediate = Intermediate(shape)
        self.output = AddedAndNormalized(shape, shape.intermediate_size)

    def forward(self, states: Tensor, *, packing: Packing) -> Tensor:
        return self.feed_forward_chunk(self.attention(states, packing))

    def feed_forward_chunk(self, states: Tensor) -> Tensor:
        return cast("Tensor", self.output(self.intermediate(states), states))


class Attention(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.self = SelfAttention(shape)
        self.output = AddedAndNormalized(shape, shape.hidden_size)

    def forward(self, states: Tensor, packing: Packing) -> Tensor:
        return cast("Tensor", self.output(self.self(states, packing), states))


class SelfAttention(nn.Module):
    """Attention inside each sequence, without the output's projection."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention_head_size = shape.hidden_size // shape.num_attention_heads
        self.scaling = self.attention_head_size**-0.5
        self.query, self.key, self.value = (nn.Linear(shape.hidden_size, shape.hidden_size) for _ in range(3))

    def forward(self, states: Tensor, packing: Packing) -> Tensor:
        heads = (1, states.shape[1], -1, self.attention_head_size)
        query, key, value = (part(states).view(heads).transpose(1, 2) for part in (self.query, self.key, self.value))
        context, _ = packed_attention(self, query, key, value, None, packing=packing, scaling=self.scaling)
        return context.reshape(states.shape)


class Intermediate(nn.Module):
    """The wider layer of the feed-forward part, with GELU by the error function."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.intermediate_act_fn = gelu

    def forward(self, states: Tensor) -> Tensor:
        return self.intermediate_act_fn(self.dense(states))


class AddedAndNormalized(nn.Module):
    """LayerNorm(residual + dense(states))."""

    def __init__(self, shape: BertShape, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, shape.hidden_size)
        self.LayerNorm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)

    def forward(self, states: Tensor, residual: Tensor) -> Tensor:
        return cast("Tensor", self.LayerNorm(self.dense(states) + residual))


class BertHead(nn.Module):
    """States of first tokens [n, H] to scores [n]: a dense layer, tanh, and the logits of the labels."""

    def __init__(self, shape: BertShape, labels: int, label: Label | None) -> None:
        super().__init__()
        self.label = label
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.out_proj = nn.Linear(shape.hidden_size, labels)

    def forward(self, states: Tensor) -> Tensor:
        return score_of(self.out_proj(torch.tanh(self.dense(states))), self.label)
