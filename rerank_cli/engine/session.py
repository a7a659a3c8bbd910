"""A model made ready to score: checkpoint, tokenizer, limits, device and scorer behind two calls.

`prepare` may run on another thread than `score`. Loading prints nothing and runs no code from the checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from rerank_cli.choices import Quantize
from rerank_cli.engine.attention import register
from rerank_cli.engine.contract import ModelFacts, RowNotes, Sizes, Work, never
from rerank_cli.engine.device import choose_device, choose_dtype, dtype_name, keep_freed_blocks, sizes_for
from rerank_cli.engine.limits import choose_limits, find
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.pending import RowWorkers, is_thread_safe
from rerank_cli.engine.prepare import PairReader, PairTexts, Prepared, prepare
from rerank_cli.engine.row_size import rows_for
from rerank_cli.engine.scorer import Scorer
from rerank_cli.engine.windows import PassageRule
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.compiled import CompiledModel, compiled
from rerank_cli.models.encoders.cpu_blocks import work_in_place
from rerank_cli.models.families import CrossEncoder, Recipe, load_model
from rerank_cli.models.inputs import Frame, Placement
from rerank_cli.models.prompts.tokens import load_tokenizer
from rerank_cli.models.quantization.apply import quantize
from rerank_cli.models.registry import half_precision, identify
from rerank_cli.models.rules import is_guess, read_as

if TYPE_CHECKING:
    from rerank_cli.engine.profiling.flops import Costs

_CPU_ROWS = 16  # that a slice makes at least: something for every core, whatever their number


class ModelSession:
    """An open model, as `contract.Session` says."""

    def __init__(
        self, facts: ModelFacts, sizes: Sizes, reader: PairReader, scorer: Scorer, plain: Callable[[], CrossEncoder]
    ) -> None:
        self.facts = facts
        self.sizes = sizes
        self._reader = reader
        self._scorer = scorer
        self._plain = plain

    @property
    def work(self) -> Work:
        return self._scorer.work

    @property
    def least_rows(self) -> int:
        """Rows that pairs are cut into at least, if there are enough of them."""
        return _CPU_ROWS if self.facts.device == "cpu" else 1

    def prepare(self, pairs: PairTexts) -> Prepared:
        """Tokenize and plan n pairs."""
        facts = self.facts
        padded, rows = not facts.packed, self.least_rows
        return prepare(pairs, self._reader, facts.batch_tokens, padded=padded, least_rows=rows)

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits, float32 [k] or [k, layers], in the order of the pairs; NaN where there is no finite one."""
        return self._scorer.score(prepared, should_stop, notes)

    def score_plainly(self, pairs: PairTexts) -> npt.NDArray[np.float32]:
        """Logits of n pairs, float32 [n] or [n, layers], as the stock model gives them in fp32, nothing packed."""
        prepared = prepare(pairs, replace(self._reader, share=False), self.facts.batch_tokens, padded=True)
        return prepared.windows.pool(self._scorer.of(self._plain()).score(prepared))[0]

    def resized(self, batch_tokens: int) -> ModelSession:
        """The same model, with rows of another size."""
        facts = replace(self.facts, batch_tokens=batch_tokens)
        return ModelSession(facts, self.sizes, self._reader, self._scorer, self._plain)

    def costs(self) -> Costs | None:
        """What a row costs in operations, None where that is not counted."""
        from rerank_cli.engine.profiling.flops import costs_of

        return costs_of(self._scorer.model)


def open_session(options: ModelOptions, checkpoint: Checkpoint | None = None) -> ModelSession:
    """Check and load a model, found already or to be found. Raises ModelError or UsageError, each one line."""
    limit_threads(options.threads)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_blocks()
    if device.index is not None:
        torch.cuda.set_device(device)  # streams, pinned memory and compiled kernels go by the current one
    checkpoint = checkpoint or find(options)
    family = identify(checkpoint)
    dtype = choose_dtype(options.dtype, device, half_precision(checkpoint, family), options.quantize)
    tokenizer = load_tokenizer(checkpoint.folder)
    reading = read_as(family, checkpoint, tokenizer, options.family)
    recipe = Recipe(checkpoint, family, options.family, reading)
    _quiet_transformers()
    attention = register()

    def load(precision: torch.dtype) -> CrossEncoder:
        return load_model(recipe, Placement(device, precision, attention))

    def load_plain() -> CrossEncoder:
        try:
            return load_model(recipe, Placement(device, torch.float32, None))
        except torch.OutOfMemoryError:
            return load_model(recipe, Placement(torch.device("cpu"), torch.float32, None))

    model = load(dtype)
    if options.quantize is Quantize.NONE and device.type == "cpu" and dtype == torch.float32 and model.packed:
        work_in_place(model.backbone)
    quantize(model.backbone, options.quantize)
    limits = choose_limits(options, model.max_positions, reading.rule)
    sizes = sizes_for(device, model.parameters)
    longest = limits.room + reading.rule.template.specials
    batch_tokens = options.batch_tokens or sizes.batch_tokens
    if device.type == "cuda" and options.batch_tokens is None:
        batch_tokens = rows_for(model, device, dtype, longest)
    if options.compile:
        model = compiled(model, Frame(batch_tokens, longest), Placement(device, dtype, attention))
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
        batch_tokens=batch_tokens,
        profile=reading.profile.name,
        profile_is_guess=is_guess(family, checkpoint, options.family),
        layers=model.layers if len(model.layers) > 1 else (),
        quantize=options.quantize.value,
        compiled=isinstance(model, CompiledModel),
    )
    exact = dtype == torch.float32 and options.quantize is Quantize.NONE
    rescue = None if exact else lambda: load(torch.float32)
    cutting = PassageRule(options.long_documents, options.stride)
    reader = PairReader(tokenizer, reading.rule, limits, cutting, options.share_prefix and model.packed)
    return ModelSession(facts, sizes, reader, Scorer(model, rescue, _workers(model, device)), load_plain)


def _workers(model: CrossEncoder, device: torch.device) -> RowWorkers | None:
    """One for each of torch's threads on a CPU, None where a row is better worked by all of them."""
    count = torch.get_num_threads()
    return RowWorkers(count) if device.type == "cpu" and count > 1 and is_thread_safe(model.backbone) else None


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
