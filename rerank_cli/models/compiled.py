"""Packed models compiled with torch.compile, which fuses the operations between the matrix products.

A model is compiled once: every row is filled up to one length, limits are constants, and what differs between rows is
in tensors, of which only the number of sequences and of scores varies. The attention is one opaque operator for the
compiler. Rows that would need much filling run uncompiled. If compiling fails, all rows do, with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from rerank_cli.models.checkpoint import one_line
from rerank_cli.models.families import CrossEncoder
from rerank_cli.models.inputs import Frame, ModelInputs, Placement, has_kernel
from rerank_cli.models.packed_row import TokenRow

log = logging.getLogger(__name__)

WORTH_FILLING = 0.8  # share of a row's real tokens: below it, the filling costs about what compiling saves
_AGREE = 0.5  # logits, on a probe: half-precision rounding stays below it, a wrong kernel does not


class Packed(CrossEncoder, Protocol):
    """A model with separate steps for the transfer of a row to the device and the computation there."""

    causal: bool

    def model_inputs(self, row: TokenRow, frame: Frame | None = None) -> ModelInputs: ...

    def compute(self, inputs: ModelInputs) -> Tensor: ...


def compiled(model: CrossEncoder, frame: Frame, placement: Placement, backend: str = "inductor") -> CrossEncoder:
    """The model compiled for rows of this frame; the model unchanged, with a warning, if it cannot be compiled.

    Takes about a minute, and less with torch's compilation cache on disk.
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
        # No compiler is installed, or it cannot compile this model. Other faults show in the uncompiled model as well.
        log.warning("--compile: %s, going on without", one_line(error))
    else:
        return made
    torch.compiler.reset()
    return model


class CompiledModel:
    """A packed model that runs rows of about the frame's length compiled, and other rows uncompiled.

    It is compiled whole and as one graph, so that norms, residuals and quantization fuse across blocks. Without CUDA
    graphs: at these row lengths kernels run for much longer than their launches take, and graphs would fix the varying
    lengths. Without a search for kernels: it takes minutes, and finds little for products of this size.
    """

    packed = True

    def __init__(self, model: Packed, frame: Frame, backend: str) -> None:
        self.plain = model
        self._frame = frame
        self._compute: Callable[[ModelInputs], Tensor] = torch.compile(model.compute, fullgraph=True, backend=backend)
        self.backbone = model.backbone
        self.max_positions = model.max_positions
        self.parameters = model.parameters
        self.layers = model.layers

    @torch.inference_mode()
    def score(self, row: TokenRow) -> Tensor:
        if not self._suits(row):
            return self.plain.score(row)
        return self._compute(self.plain.model_inputs(row, self._frame))[: row.sequences]

    def computed(self, row: TokenRow) -> int:
        return self._frame.tokens if self._suits(row) else self.plain.computed(row)

    @torch.inference_mode()
    def try_out(self) -> None:
        """Compile, and score a probe row with both models. Raises RuntimeError if scores differ beyond rounding.

        The probe's sequences have about half the maximal length; in a decoder, two of them share a prefix. The
        compiler would take lengths that are equal here for equal in every row.
        """
        half = self._frame.longest // 2
        lengths = np.full(int(0.9 * self._frame.tokens) // half, half, dtype=np.int64)
        parents = None
        if self.plain.causal:
            parents = np.full(len(lengths), -1, dtype=np.int64)
            parents[1:3] = 0
        ids = (np.arange(lengths.sum()) % 89 + 5).astype(np.int32)
        row = TokenRow(ids, np.zeros_like(ids), lengths, parents)
        inputs = self.plain.model_inputs(row, self._frame)
        packing = inputs.packing
        varying = [packing.offsets, packing.scored_offsets, packing.score_at]
        for tensor in varying if packing.keys is None else [*varying, packing.keys.index, packing.keys.offsets]:
            torch._dynamo.mark_dynamic(tensor, 0)
        found = self._compute(inputs)[: row.sequences]
        if not torch.allclose(found, self.plain.score(row), atol=_AGREE, rtol=0.05, equal_nan=True):
            raise RuntimeError("the compiled model does not score as the plain one does")

    def _suits(self, row: TokenRow) -> bool:
        """A row of one sequence is excluded: the compiler does not take a length of one as a varying length."""
        tokens, most = self._frame.tokens, self._frame.longest
        fits = WORTH_FILLING * tokens <= row.tokens <= tokens and int(row.sequence_lengths.max()) <= most
        return fits and row.sequences > 1
