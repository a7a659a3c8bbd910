"""From a family's name to a model on a device: the one place that knows every way to score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.inputs import Placement
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.registry import CLASSIFIER, DECODER, LAYERWISE, LIGHTWEIGHT, MODULAR
from rerank_cli.models.rules import Reading


class CrossEncoder(Protocol):
    """A model on a device.

    `score` takes a row and gives the scores of its n sequences in their order, fp32, on that device: [n], or
    [n, layers] where several `layers` give one each.
    """

    max_positions: int
    parameters: int
    packed: bool
    layers: tuple[int, ...]

    @property
    def backbone(self) -> nn.Module: ...

    def score(self, row: TokenRow) -> Tensor: ...

    def computed(self, row: TokenRow) -> int:
        """Tokens that the device works out for this row, padding included."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides which scores come out, but for the place they are worked out at."""

    checkpoint: Checkpoint
    family: str
    options: FamilyOptions
    reading: Reading


def load_model(recipe: Recipe, placement: Placement) -> CrossEncoder:
    """The model, fed packed rows where possible. ModelError in one line where it cannot be had.

    Only the family's own classes are imported: those of language models take seconds.
    """
    checkpoint, options, reading = recipe.checkpoint, recipe.options, recipe.reading
    if recipe.family == LAYERWISE:
        from rerank_cli.models.decoders.layerwise import load_layerwise

        return load_layerwise(checkpoint, placement, options)
    if recipe.family == LIGHTWEIGHT:
        from rerank_cli.models.decoders.lightweight import load_lightweight

        return load_lightweight(checkpoint, placement, options)
    if recipe.family in {DECODER, CLASSIFIER}:
        from rerank_cli.models.decoders.causal import Answers, load_decoder

        return load_decoder(checkpoint, placement, Answers(reading.answers, reading.profile.divide_by))
    if recipe.family == MODULAR:
        from rerank_cli.models.encoders.modular import load_modular

        return load_modular(checkpoint, placement)
    from rerank_cli.models.encoders.classifier import load_encoder

    return load_encoder(checkpoint, placement)
