"""How long a pair may be for a model, and what can be told of it by its tokenizer alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rerank_cli.engine.contract import DEFAULT_MAX_LENGTH, ModelOptions
from rerank_cli.errors import UsageError
from rerank_cli.models.checkpoint import Checkpoint, resolve
from rerank_cli.models.pairs import Limits
from rerank_cli.models.registry import identify
from rerank_cli.models.tokens import TextTokenizer, load_tokenizer


def choose_limits(options: ModelOptions, positions: int, specials: int) -> Limits:
    """`--max-length` (512, or less where the model has fewer positions) and the query's share, three quarters."""
    asked = options.max_length
    if asked is not None and asked > positions:
        raise UsageError(f"--max-length {asked}: this model has {positions} positions. Fix: --max-length {positions}")
    max_length = min(DEFAULT_MAX_LENGTH, positions) if asked is None else asked
    if max_length < specials + 2:
        raise UsageError(f"--max-length {max_length}: too short for a pair (expected at least {specials + 2})")
    query = options.query_max_length
    if query is not None and not 1 <= query <= max_length:
        raise UsageError(f"--query-max-length {query}: expected 1 to {max_length}")
    return Limits(max_length, max_length * 3 // 4 if query is None else query)


def find(options: ModelOptions) -> Checkpoint:
    """The checkpoint with its weights, fetched if need be; told before torch is imported that there is none."""
    return resolve(options.name, options.revision)


@dataclass(frozen=True, slots=True)
class TokenizerOnly:
    """What can be known of a model without its weights: its tokenizer and the limits that would apply."""

    checkpoint: Checkpoint
    tokenizer: TextTokenizer
    limits: Limits


def open_tokenizer(options: ModelOptions) -> TokenizerOnly:
    """The tokenizer of a model and its limits; fetches and reads no weights."""
    if options.threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    checkpoint = resolve(options.name, options.revision, weights=False)
    identify(checkpoint.config, checkpoint.name)
    tokenizer = load_tokenizer(checkpoint.folder)
    positions = int(checkpoint.config.get("max_position_embeddings") or options.max_length or DEFAULT_MAX_LENGTH)
    if checkpoint.config.get("model_type") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= int(checkpoint.config.get("pad_token_id", 1)) + 1
    return TokenizerOnly(checkpoint, tokenizer, choose_limits(options, positions, tokenizer.template.specials))
