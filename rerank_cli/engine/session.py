"""Opens a model for scoring. Loading prints nothing and runs no code from the checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from rerank_cli.choices import Quantize
from rerank_cli.engine.contract import ModelFacts, RowNotes, Sizes, Work, never
from rerank_cli.engine.device import choose_device, choose_dtype, dtype_name, keep_freed_blocks, sizes_for
from rerank_cli.engine.limits import find, limits_of, refuse_for_lists, remarks_of, scores_of
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.pending import RowWorkers, is_thread_safe
from rerank_cli.engine.row_size import rows_for
from rerank_cli.engine.rows.lists import ListTokenizer, prepare_lists
from rerank_cli.engine.rows.prepare import PairTexts, PairTokenizer, Prepared, prepare
from rerank_cli.engine.rows.windows import PassageRule
from rerank_cli.engine.scorer import Scorer
from rerank_cli.models.attention.packed import PACKED
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.compiled import CompiledModel, compiled
from rerank_cli.models.encoders.cpu.replace import replace_layers
from rerank_cli.models.families import CrossEncoder, Recipe, load_model
from rerank_cli.models.inputs import Frame, Placement
from rerank_cli.models.quantization.apply import quantize
from rerank_cli.models.quantization.int8 import remarks as remarks_of_int8
from rerank_cli.models.reading.choosing import is_guess
from rerank_cli.models.reading.rules import read_pairs
from rerank_cli.models.registry import half_precision, identify

if TYPE_CHECKING:
    from rerank_cli.engine.profiling.flops import Costs

_CPU_ROWS = 16  # minimum rows per slice on a CPU, so that all cores are busy, whatever their number


@dataclass(frozen=True, slots=True)
class ModelSession:
    """An open model, see `contract.Session`."""

    facts: ModelFacts
    sizes: Sizes
    _tokenizer: PairTokenizer | ListTokenizer
    _scorer: Scorer
    _load_plain: Callable[[], CrossEncoder]

    @property
    def work(self) -> Work:
        return self._scorer.work

    @property
    def least_rows(self) -> int:
        """Minimum number of rows that pairs are divided into, if there are enough pairs."""
        return _CPU_ROWS if self.facts.device == "cpu" else 1

    def prepare(self, pairs: PairTexts) -> Prepared:
        facts = self.facts
        if isinstance(self._tokenizer, ListTokenizer):
            return prepare_lists(pairs, self._tokenizer)
        return prepare(pairs, self._tokenizer, facts.batch_tokens, padded=not facts.packed, least_rows=self.least_rows)

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        return self._scorer.score(prepared, should_stop, notes)

    def score_plainly(self, pairs: PairTexts) -> npt.NDArray[np.float32]:
        if isinstance(self._tokenizer, ListTokenizer):
            prepared = prepare_lists(pairs, self._tokenizer)
        else:
            prepared = prepare(pairs, replace(self._tokenizer, share=False), self.facts.batch_tokens, padded=True)
        return prepared.windows.pool(Scorer(self._load_plain(), workers=self._scorer.workers).score(prepared))[0]

    def resized(self, batch_tokens: int) -> ModelSession:
        """A session of the same model with rows of another size."""
        return replace(self, facts=replace(self.facts, batch_tokens=batch_tokens))

    def costs(self) -> Costs | None:
        """Operations per row, None for a model type that is not counted."""
        from rerank_cli.engine.profiling.flops import costs_of

        return costs_of(self._scorer.model)


def open_session(options: ModelOptions, checkpoint: Checkpoint | None = None) -> ModelSession:
    """Load a model; `checkpoint` saves looking it up again. Raises ModelError or UsageError, each one line."""
    # By default torch already ignores hyper-threads where it can detect them.
    if options.threads is not None:
        torch.set_num_threads(options.threads)
        os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_blocks()
    if device.index is not None:
        torch.cuda.set_device(device)  # streams, pinned memory and compiled kernels use the current device
    checkpoint = checkpoint or find(options)
    family = identify(checkpoint)
    dtype = choose_dtype(options.dtype, device, half_precision(checkpoint, family), options.quantize)
    text_tokenizer, reading = read_pairs(family, checkpoint, options.family)
    if reading.lists is not None:
        refuse_for_lists(options)
    recipe = Recipe(checkpoint, family, options.family, reading)

    def load(precision: torch.dtype) -> CrossEncoder:
        return load_model(recipe, Placement(device, precision, PACKED))

    def load_plain() -> CrossEncoder:
        try:
            return load_model(recipe, Placement(device, torch.float32, None))
        except torch.OutOfMemoryError:
            return load_model(recipe, Placement(torch.device("cpu"), torch.float32, None))

    model = load(dtype)
    exact = dtype == torch.float32 and options.quantize is Quantize.NONE
    if device.type == "cpu" and model.packed and dtype != torch.float16 and options.quantize is not Quantize.FP8:
        replace_layers(model.backbone, for_integers=options.quantize is Quantize.INT8)
    quantize(model.backbone, options.quantize)
    limits = limits_of(options, model.max_positions, reading)
    sizes = sizes_for(device, model.parameters)
    longest = limits.room + reading.rule.template.specials
    batch_tokens = options.batch_tokens or sizes.batch_tokens
    if device.type == "cuda" and options.batch_tokens is None and reading.lists is None:
        batch_tokens = rows_for(model, device, dtype, longest)
    if options.compile:
        model = compiled(model, Frame(batch_tokens, longest), Placement(device, dtype, PACKED))
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
        scores=scores_of(reading),
        by_files=reading.by_files,
        remarks=remarks_of(options, reading, limits, model.max_positions)
        + (remarks_of_int8() if options.quantize is Quantize.INT8 else ()),
        listwise=reading.lists is not None,
    )
    passage_rule = PassageRule(options.long_documents, options.stride)
    share = options.share_prefix and model.packed
    tokenizer: PairTokenizer | ListTokenizer = PairTokenizer(text_tokenizer, reading.rule, limits, passage_rule, share)
    if reading.lists is not None:
        tokenizer = ListTokenizer(text_tokenizer, reading.lists, limits)
    threads = torch.get_num_threads()
    parallel = device.type == "cpu" and threads > 1 and is_thread_safe(model.backbone)
    scorer = Scorer(model, None if exact else lambda: load(torch.float32), RowWorkers(threads) if parallel else None)
    return ModelSession(facts, sizes, tokenizer, scorer, load_plain)
