"""Opens a model for training: its tokenizer, how it reads a pair, and its trained tensors on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rerank_cli.engine.device import choose_device, keep_freed_blocks
from rerank_cli.engine.limits import find
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import UsageError
from rerank_cli.models.attention.packed import PACKED
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.families import Recipe
from rerank_cli.models.inputs import Placement
from rerank_cli.models.prompts.pairs import Limits, PairRule
from rerank_cli.models.reading.rules import read_as, read_pairs
from rerank_cli.models.registry import identify
from rerank_cli.models.trainable import Trainable, TrainedPart, load_trainable
from rerank_cli.training.tokens import GroupTokenizer, Lengths


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model in training. `limits` are those of pairs without a prompt of their own."""

    recipe: Recipe
    trainable: Trainable
    tokenizer: GroupTokenizer
    limits: Limits


def open_model(
    options: ModelOptions,
    part: TrainedPart,
    lengths: Lengths,
    checkpoint: Checkpoint | None = None,
    *,
    packed: bool = True,
    on_host: bool = False,
) -> OpenModel:
    """Load a model for training, with packed rows where its type takes them. Raises ModelError and UsageError.

    `on_host`: see `Placement`.

    Weights are fp32, and on CUDA products are computed in bf16 unless `options.dtype` is fp32. With adapters, weights
    that are not trained are in the dtype of the products.
    """
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_blocks()
    checkpoint = checkpoint or find(options)
    family = identify(checkpoint)
    text_tokenizer, reading = read_pairs(family, checkpoint, options.family)
    recipe = Recipe(checkpoint, family, options.family, reading)
    half = _products(options.dtype, device)
    weights = half if part.lora is not None and half is not None and device.type == "cuda" else torch.float32
    placement = Placement(device, weights, PACKED if packed else None, on_host)
    trainable = load_trainable(recipe, placement, replace(part, autocast=half))
    model = trainable.model

    def rule_for(prompt: str | None) -> PairRule:
        if prompt is None:
            return reading.rule
        return read_as(family, checkpoint, text_tokenizer, replace(options.family, prompt=prompt)).rule

    limits, _ = lengths.limits(reading.rule, model.max_positions, family)
    tokenizer = GroupTokenizer(
        text_tokenizer,
        rule_for,
        lengths,
        model.max_positions,
        family,
        row_tokens=options.batch_tokens or (2048 if device.type == "cpu" else 16_384),
        padded=not model.packed,
        takes_prompt="prompt" in reading.options,
    )
    return OpenModel(recipe, trainable, tokenizer, limits)


def _products(dtype: str, device: torch.device) -> torch.dtype | None:
    """The dtype of matrix products if it is not that of the weights."""
    if dtype == "fp16":
        raise UsageError("--dtype fp16: gradients underflow in it. Fix: --dtype bf16")
    on = dtype == "bf16" or (dtype == "auto" and device.type == "cuda")
    return torch.bfloat16 if on else None
