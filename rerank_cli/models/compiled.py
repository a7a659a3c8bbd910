"""A packed model compiled as a whole: kernels that fuse what lies between the matrix products.

Compiled once: every row is brought to one length, limits are constants, and what differs from row to row is in tensors,
whose few lengths that vary (sequences, scores) are free. Attention is one operator to the compiler. Rows that would be
filler for a good part run as they are. Where compiling fails, all do, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from rerank_cli.models.families import CrossEncoder
from rerank_cli.models.inputs import Frame, ModelInputs, Placement, has_kernel
from rerank_cli.models.packed_row import TokenRow

log = logging.getLogger(__name__)

WORTH_FILLING = 0.8  # of a row's tokens real: compiling saves about as much as filling the rest costs
_AGREE = 0.5  # logits, on a probe: half-precision rounding is below that, a kernel gone wrong is not


class Packed(CrossEncoder, Protocol):
    """A model that tells apart what it sends to the device and what it works out there."""

    causal: bool

    def model_inputs(self, row: TokenRow, frame: Frame | None = None) -> ModelInputs: ...

    def compute(self, inputs: ModelInputs) -> Tensor: ...


def compiled(model: CrossEncoder, frame: Frame, placement: Placement, backend: str = "inductor") -> CrossEncoder:
    """The model compiled for rows of this frame, or as it is, with a line why, where that cannot be had.

    Takes a minute or so, which a cache of torch's on disk makes shorter next time.
    """
    if not has_kernel(placement.device) or placement.dtype == torch.float32:
        log.warning("--compile: takes fp16 or bf16 on a CUDA card (SM 8.0 or later), going on without")
        return model
    if not hasattr(model, "compute"):
        log.warning("--compile: not for models that are padded or score from several layers, going on without")
        return model
    if frame.tokens < 4 * frame.longest:
        few = f"rows of {frame.tokens} tokens are too few for sequences of up to {frame.longest}"
        log.warning("--compile: %s, going on without. Fix: --batch-tokens %d", few, 4 * frame.longest)
        return model
    log.info("compiling for rows of %d tokens", frame.tokens)
    made = CompiledModel(cast("Packed", model), frame, backend)
    try:
        made.try_out()
    except torch.OutOfMemoryError:
        log.warning("--compile: out of memory at %d tokens a row, going on without", frame.tokens)
    except (RuntimeError, ImportError, OSError, AssertionError, TypeError, AttributeError) as error:
        # No compiler at hand, or a model it cannot take: the plain model says for itself what is truly broken.
        log.warning("--compile: %s, going on without", " ".join(str(error).split())[:200] or type(error).__name__)
    else:
        return made
    torch.compiler.reset()
    return model


class CompiledModel:
    """A packed model whose rows of about the frame's length run compiled.

    Whole and in one graph, so that norms, residuals and quantization fuse across blocks. No CUDA graphs: at these row
    lengths the device is busy for many times as long as launching takes, and they would fix what is free here. No
    search for kernels either: it takes minutes, and finds little in products of this size.
    """

    packed = True

    def __init__(self, model: Packed, frame: Frame, backend: str) -> None:
        self._model = model
        self._frame = frame
        self._compute: Callable[[ModelInputs], Tensor] = torch.compile(model.compute, fullgraph=True, backend=backend)
        self.max_positions = model.max_positions
        self.parameters = model.parameters
        self.layers = model.layers

    @property
    def plain(self) -> Packed:
        return self._model

    @property
    def backbone(self) -> nn.Module:
        return self._model.backbone

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        if not self._suits(row):
            return self._model.score(row)
        return self._compute(self._model.model_inputs(row, self._frame))[: row.sequences]

    def computed(self, row: TokenRow) -> int:
        return self._frame.tokens if self._suits(row) else self._model.computed(row)

    @torch.inference_mode()
    def try_out(self) -> None:
        """Compile, and score a made-up row both ways. RuntimeError where the scores differ by more than rounding."""
        row = self._probe()
        inputs = self._model.model_inputs(row, self._frame)
        for tensor in _free_lengths(inputs):
            torch._dynamo.mark_dynamic(tensor, 0)
        found = self._compute(inputs)[: row.sequences]
        if not torch.allclose(found, self._model.score(row), atol=_AGREE, rtol=0.05, equal_nan=True):
            raise RuntimeError("the compiled model does not score as the plain one does")

    def _suits(self, row: TokenRow) -> bool:
        """One sequence alone is left out: a length of one is no free length to the compiler."""
        tokens, most = self._frame.tokens, self._frame.longest
        fits = WORTH_FILLING * tokens <= row.tokens <= tokens and int(row.sequence_lengths.max()) <= most
        return fits and row.sequences > 1

    def _probe(self) -> TokenRow:
        """Made-up sequences as long as they get, of which in a decoder two share a beginning.

        What may differ between rows differs here: lengths that are equal now would be taken to be equal always.
        """
        half = self._frame.longest // 2
        lengths = np.full(int(0.9 * self._frame.tokens) // half, half, dtype=np.int64)
        parents = None
        if self._model.causal:
            parents = np.full(len(lengths), -1, dtype=np.int64)
            parents[1:3] = 0
        ids = (np.arange(lengths.sum()) % 89 + 5).astype(np.int32)
        return TokenRow(ids, np.zeros_like(ids), lengths, parents)


def _free_lengths(inputs: ModelInputs) -> list[Tensor]:
    """Tensors whose length goes by the number of sequences, or of keys."""
    packing = inputs.packing
    free = [packing.offsets, packing.scored_offsets, packing.score_at]
    return free if packing.keys is None else [*free, packing.keys.index, packing.keys.offsets]
