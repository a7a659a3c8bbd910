"""A model made ready to score: checkpoint, tokenizer, limits, device and scorer behind two calls.

`prepare` may run on another thread than `score`. Loading prints nothing and runs no code from the checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rerank_cli.engine.attention import register
from rerank_cli.engine.device import Sizes, choose_device, choose_dtype, dtype_name, sizes_for
from rerank_cli.engine.prepare import PairTexts, Prepared, prepare
from rerank_cli.engine.scorer import Scorer, Work, never
from rerank_cli.errors import UsageError
from rerank_cli.models.checkpoint import Checkpoint, resolve
from rerank_cli.models.encoder import CrossEncoder, Placement, load_encoder
from rerank_cli.models.pairs import Limits
from rerank_cli.models.registry import identify
from rerank_cli.models.tokens import TextTokenizer, load_tokenizer

DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, where, and how long its inputs may be. None takes the default of the place or the model."""

    name: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_length: int | None = None
    query_max_length: int | None = None
    batch_tokens: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a summary says of the model that ran."""

    name: str
    revision: str
    family: str
    device: str
    dtype: str
    parameters: int
    packed: bool
    max_length: int
    query_max_length: int
    batch_tokens: int


class Session:
    """An open model."""

    def __init__(
        self, facts: ModelFacts, sizes: Sizes, tokenizer: TextTokenizer, limits: Limits, scorer: Scorer
    ) -> None:
        self.facts = facts
        self.sizes = sizes
        self._tokenizer = tokenizer
        self._limits = limits
        self._scorer = scorer

    @property
    def work(self) -> Work:
        return self._scorer.work

    def prepare(self, pairs: PairTexts) -> Prepared:
        """Tokenize and plan n pairs."""
        facts = self.facts
        return prepare(pairs, self._tokenizer, self._limits, facts.batch_tokens, padded=not facts.packed)

    def score(self, prepared: Prepared, should_stop: Callable[[], bool] = never) -> npt.NDArray[np.float32]:
        """Logits, float32 [n], in the order of the pairs; NaN where there is no finite one."""
        return self._scorer.score(prepared, should_stop)


def open_session(options: ModelOptions) -> Session:
    """Find, check and load a model. Raises ModelError or UsageError, each with one line for a person."""
    limit_threads(options.threads)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    checkpoint = resolve(options.name, options.revision)
    family = identify(checkpoint.config, checkpoint.name)
    tokenizer = load_tokenizer(checkpoint.folder)
    _quiet_transformers()
    attention = register()

    def load(precision: torch.dtype) -> CrossEncoder:
        return load_encoder(checkpoint, Placement(device, precision, attention))

    model = load(dtype)
    limits = choose_limits(options, model.max_positions, tokenizer.template.specials)
    sizes = sizes_for(device, model.parameters)
    facts = ModelFacts(
        name=checkpoint.name,
        revision=checkpoint.revision,
        family=family,
        device=str(device),
        dtype=dtype_name(dtype),
        parameters=model.parameters,
        packed=model.packed,
        max_length=limits.max_length,
        query_max_length=limits.query_max_length,
        batch_tokens=options.batch_tokens or sizes.batch_tokens,
    )
    rescue = None if dtype == torch.float32 else lambda: load(torch.float32)
    return Session(facts, sizes, tokenizer, limits, Scorer(model, rescue))


@dataclass(frozen=True, slots=True)
class TokenizerOnly:
    """What can be known of a model without its weights: its tokenizer and the limits that would apply."""

    checkpoint: Checkpoint
    tokenizer: TextTokenizer
    limits: Limits


def open_tokenizer(options: ModelOptions) -> TokenizerOnly:
    """The tokenizer of a model and its limits; fetches and reads no weights."""
    limit_threads(options.threads)
    checkpoint = resolve(options.name, options.revision, weights=False)
    identify(checkpoint.config, checkpoint.name)
    tokenizer = load_tokenizer(checkpoint.folder)
    positions = int(checkpoint.config.get("max_position_embeddings") or options.max_length or DEFAULT_MAX_LENGTH)
    if checkpoint.config.get("model_type") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= int(checkpoint.config.get("pad_token_id", 1)) + 1
    return TokenizerOnly(checkpoint, tokenizer, choose_limits(options, positions, tokenizer.template.specials))


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


def limit_threads(threads: int | None) -> None:
    """Threads of torch and of the tokenizer; torch already leaves hyper-threads out where it can tell."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["RAYON_NUM_THREADS"] = str(threads)


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
