"""Loads the model of a family onto a device: the only module that imports every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.inputs import Placement
from rerank_cli.models.known import (
    BIDIRECTIONAL,
    CLASSIFIER,
    DECODER,
    LAYERWISE,
    LIGHTWEIGHT,
    LISTWISE,
    MODULAR,
    SEQ2SEQ,
)
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.reading.rules import Reading


class CrossEncoder(Protocol):
    """A model on a device.

    `score` takes a row of n sequences and returns their scores in order, fp32 on that device: [n], or [n, layers] if
    several `layers` give a score each.
    """

    max_positions: int
    parameters: int
    packed: bool
    layers: tuple[int, ...]

    @property
    def backbone(self) -> nn.Module: ...

    def score(self, row: TokenRow) -> Tensor: ...

    def computed(self, row: TokenRow) -> int:
        """Tokens that the device computes for this row, padding included."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines the scores, except the device and the dtype."""

    checkpoint: Checkpoint
    family: str
    options: FamilyOptions
    reading: Reading


def load_model(recipe: Recipe, placement: Placement) -> CrossEncoder:
    """Load the model, fed with packed rows where possible. Raises ModelError, one line, if it cannot be loaded.

    Only the family's own module is imported: the classes of language models take seconds to import.
    """
    checkpoint, options, reading = recipe.checkpoint, recipe.options, recipe.reading
    if recipe.family == LAYERWISE:
        from rerank_cli.models.decoders.layerwise import load_layerwise

        return load_layerwise(checkpoint, placement, options)
    if recipe.family == LIGHTWEIGHT:
        from rerank_cli.models.decoders.lightweight import load_lightweight

        return load_lightweight(checkpoint, placement, options)
    if recipe.family in {DECODER, CLASSIFIER}:
        from rerank_cli.models.decoders.causal import load_decoder

        return load_decoder(checkpoint, placement, reading.answers, reading.profile.divide_by, reading.label)
    if checkpoint.adapter is not None and recipe.family in {BIDIRECTIONAL, LISTWISE, SEQ2SEQ}:
        raise ModelError(f"{checkpoint.name}: an adapter of a model of the family {recipe.family} is not supported")
    if reading.lists is not None:
        from rerank_cli.models.decoders.listwise import load_listwise

        return load_listwise(checkpoint, placement, reading.lists)
    if recipe.family == SEQ2SEQ:
        assert reading.answers is not None
        from rerank_cli.models.decoders.seq2seq import load_seq2seq

        return load_seq2seq(checkpoint, placement, reading.answers, reading.profile.divide_by)
    if recipe.family == BIDIRECTIONAL:
        from rerank_cli.models.decoders.bidirectional import load_bidirectional

        return load_bidirectional(checkpoint, placement)
    if recipe.family == MODULAR:
        from rerank_cli.models.encoders.modular import load_modular

        return load_modular(checkpoint, placement, reading.skip)
    if placement.attention is not None:
        from rerank_cli.models.encoders.bert.load import load_bert

        if found := load_bert(checkpoint, placement, reading.label):
            return found
    from rerank_cli.models.encoders.classifier import load_encoder

    return load_encoder(checkpoint, placement, reading.label)
