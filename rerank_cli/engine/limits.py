"""Token limits of a pair for a model, and what its tokenizer alone tells about the model."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import UsageError
from rerank_cli.models.checkpoint import Checkpoint, resolve
from rerank_cli.models.prompts.pairs import Limits, PairRule
from rerank_cli.models.prompts.tokens import TextTokenizer, load_tokenizer
from rerank_cli.models.registry import identify
from rerank_cli.models.rules import Reading, read_as


def choose_limits(options: ModelOptions, positions: int, rule: PairRule) -> Limits:
    """`--max-length` (by default the rule's, or less if the model has fewer positions) and the query's share of it.

    Raises UsageError for limits that the model's `positions` do not allow, or that leave no room for a pair.
    """
    asked, granted = options.max_length, rule.granted
    most = positions - granted
    if asked is not None and asked > most:
        prompt = f", {granted} of them for the prompt" if granted else ""
        raise UsageError(
            f"--max-length {asked}: this model has {positions} positions{prompt}. Fix: --max-length {most}"
        )
    max_length = min(rule.max_length, most) if asked is None else asked
    room = max_length + granted - rule.template.specials
    if room < 2:
        raise UsageError(f"--max-length {max_length}: too short for a pair (expected at least {max_length - room + 2})")
    query = options.query_max_length
    if query is not None and not 1 <= query <= max_length:
        raise UsageError(f"--query-max-length {query}: expected 1 to {max_length}")
    return Limits(max_length, int(max_length * rule.query_share) if query is None else query, room)


def find(options: ModelOptions) -> Checkpoint:
    """The checkpoint with its weights, downloaded if necessary. Needs no torch."""
    return resolve(options.name, options.revision, options.family.adapter)


@dataclass(frozen=True, slots=True)
class TokenizerOnly:
    """A model without its weights: how it reads a pair, and its limits."""

    checkpoint: Checkpoint
    family: str
    tokenizer: TextTokenizer
    reading: Reading
    limits: Limits


def open_tokenizer(options: ModelOptions) -> TokenizerOnly:
    """The tokenizer of a model and its limits; neither downloads nor reads weights."""
    if options.threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    checkpoint = resolve(options.name, options.revision, options.family.adapter, weights=False)
    family = identify(checkpoint)
    tokenizer = load_tokenizer(checkpoint.folder)
    reading = read_as(family, checkpoint, tokenizer, options.family)
    positions = int(checkpoint.config.get("max_position_embeddings") or 1 << 20)
    if checkpoint.config.get("model_type") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= int(checkpoint.config.get("pad_token_id", 1)) + 1
    return TokenizerOnly(checkpoint, family, tokenizer, reading, choose_limits(options, positions, reading.rule))
