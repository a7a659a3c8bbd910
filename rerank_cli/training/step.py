"""One training step: groups to rows, scores, loss and gradients, in as many parts as the memory needs.

The loss of a batch is a sum over units divided by their number, so parts of a batch add up to the same gradients. A
part is one or several groups. The rows of a group that does not fit at once are computed one by one: first all scores
without gradients, then each row again with the gradient of its scores. Source: Gao et al., "Scaling Deep Contrastive
Learning Batch Size under Memory Limited Setup", 2021.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rerank_cli.errors import ModelError
from rerank_cli.models.decoders.layered import Compression
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.trainable import Trainable
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.losses import LossSettings, loss_of, targets_of
from rerank_cli.training.optimizer import Optimizer, gradient_norm
from rerank_cli.training.tokens import GroupTokenizer, TokenizedGroups

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompressionChoice:
    """Compression of a lightweight model while training: a step compresses at all `layers` by one of the `ratios`.

    With `vary`, it compresses at each layer with probability one half, as the model's authors do.
    """

    layers: tuple[int, ...] = ()
    ratios: tuple[int, ...] = (1,)
    vary: bool = True

    def at(self, seed: int, step: int) -> Compression:
        """A pure function of the seed and the step."""
        random = np.random.default_rng((seed, step, 0x636F6D70))
        ratio = int(random.choice(self.ratios))
        kept = [layer for layer in self.layers if not self.vary or random.integers(2)]
        return Compression(frozenset(kept), ratio)


@dataclass(frozen=True, slots=True)
class StepReport:
    """A step that was computed: mean loss, norm of the gradients before clipping, and what it took.

    `tokens` are those of whole pairs, `parts` the number of parts of the batch. `scores` are those of the local groups,
    [n] or [n, layers].
    """

    loss: float
    gradient_norm: float
    pairs: int
    tokens: int
    truncated: int
    parts: int
    scores: Tensor


@dataclass(slots=True)
class Trainer:
    """Computes steps of a model. It has no other state than the model, the optimizer and `part_tokens`.

    `part_tokens` is the number of tokens whose activations are kept at once; it is halved when memory runs out. The
    random numbers of dropout depend on `seed`, the step and the row. `reduce` adds tensors over all processes in place.
    """

    model: Trainable
    tokenizer: GroupTokenizer
    loss: LossSettings
    optimizer: Optimizer
    seed: int = 0
    part_tokens: int = 1 << 30
    compression: CompressionChoice = field(default_factory=CompressionChoice)
    reduce: Callable[[list[Tensor]], None] | None = None
    out_of_memory: int = 0

    def run(self, step: int, rate: float, groups: Sequence[DrawnGroup], everyone: Sequence[DrawnGroup]) -> StepReport:
        """Compute a step, numbered from 0, and change the weights.

        `groups` are those of this process, `everyone` those of all processes. Raises ModelError if the loss or the
        gradient is not finite; the weights are then as before the step.
        """
        found = self.gradients(step, groups, everyone)
        norm = self.optimizer.step(rate)
        return replace(found, gradient_norm=norm)

    def gradients(self, step: int, groups: Sequence[DrawnGroup], everyone: Sequence[DrawnGroup]) -> StepReport:
        """Compute a step's loss and gradients, which stay in the trained tensors."""
        self.optimizer.clear()
        units = max(1, self.loss.units(everyone))
        compression = self.compression.at(self.seed, step)
        if hasattr(self.model.model, "compression"):
            cast("Any", self.model.model).compression = compression
        while True:
            try:
                found = self._parts(step, groups, units)
                break
            except torch.OutOfMemoryError as error:
                longest = self._longest(groups)
                if self.part_tokens <= longest:
                    what = f"out of memory on a single pair of {longest} tokens"
                    raise ModelError(
                        f"{what}. Fix: --max-length, --recompute, or LoRA instead of all weights"
                    ) from error
                self._make_smaller(groups)
        if self.reduce is not None:
            total = torch.tensor([found.loss], device=self.model.device)
            gradients = [self._gradient(weight) for weight in self.model.trained.values()]
            self.reduce([total, *gradients])
            found = replace(found, loss=float(total))
        norm = gradient_norm(list(self.model.trained.values()))
        if not (np.isfinite(found.loss) and np.isfinite(norm)):
            self.optimizer.clear()
            what = f"step {step + 1}: the loss is {found.loss:g} and the norm of the gradient {norm:g}"
            raise ModelError(f"{what}. Fix: a smaller --lr, or --dtype fp32")
        return replace(found, gradient_norm=norm)

    def _gradient(self, weight: Tensor) -> Tensor:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        return weight.grad

    def _make_smaller(self, groups: Sequence[DrawnGroup]) -> None:
        """Halve the parts and begin the step again: the gradients of a part that failed are not complete."""
        self.optimizer.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.out_of_memory += 1
        total = int(self.tokenizer.tokenize(groups).tokens.sum())
        self.part_tokens = max(1, min(self.part_tokens, total) // 2)
        log.warning("out of memory, keeping activations of %d tokens at once now", self.part_tokens)

    def _longest(self, groups: Sequence[DrawnGroup]) -> int:
        return int(self.tokenizer.tokenize(groups).tokens.max())

    def _parts(self, step: int, groups: Sequence[DrawnGroup], units: int) -> StepReport:
        if not groups:  # fewer groups in the batch than processes
            return StepReport(0.0, 0.0, 0, 0, 0, 0, torch.empty(0))
        whole = self.tokenizer.tokenize(groups)
        ends = np.cumsum([len(group.passages) for group in groups])
        sizes = np.diff(np.concatenate(([0], np.cumsum(whole.tokens)[ends - 1])))
        total, scores = 0.0, []
        parts = _cut(sizes.tolist(), self.part_tokens)
        for members in parts:
            part = [groups[member] for member in members]
            tokenized = whole if len(members) == len(groups) else self.tokenizer.tokenize(part)
            loss, found = self._part(step, part, tokenized, units)
            total += loss
            scores.append(found)
        pairs = len(whole.places)
        return StepReport(total, 0.0, pairs, int(whole.tokens.sum()), whole.truncated, len(parts), torch.cat(scores))

    def _part(
        self, step: int, groups: Sequence[DrawnGroup], tokenized: TokenizedGroups, units: int
    ) -> tuple[float, Tensor]:
        """The share of these groups in the loss, and their scores; adds to the gradients."""
        places = torch.from_numpy(tokenized.places).to(self.model.device)
        targets = targets_of(groups, self.loss, self.model.device)
        uncompressed = self._uncompressed(step, tokenized.rows, places)

        def share(scores: Tensor) -> Tensor:
            return loss_of(scores[places], targets, self.loss, uncompressed) / units

        if int(tokenized.tokens.sum()) <= self.part_tokens:
            scores = torch.cat([self._logits(step, row) for row in tokenized.rows])
            loss = share(scores)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach()), scores.detach()[places]
        pieces = [piece for row in tokenized.rows for piece in self._pieces(row)]
        with torch.no_grad():
            known = [self._logits(step, row) for row in pieces]
        scores = torch.cat(known).requires_grad_()
        loss = share(scores)
        loss.backward()  # type: ignore[no-untyped-call]
        assert scores.grad is not None
        gradients = torch.split(scores.grad, [len(part) for part in known])
        for row, gradient in zip(pieces, gradients, strict=True):
            self._logits(step, row).backward(gradient)  # type: ignore[no-untyped-call]
        return float(loss.detach()), scores.detach()[places]

    def _uncompressed(self, step: int, rows: Sequence[TokenRow], places: Tensor) -> Tensor | None:
        """The scores [n, layers] without compression, if the loss reads them."""
        model = cast("Any", self.model.model)
        if not (self.loss.reads_uncompressed and hasattr(model, "compression")):
            return None
        compression, model.compression = model.compression, Compression()
        try:
            with torch.no_grad():
                return torch.cat([self._logits(step, row) for row in rows])[places]
        finally:
            model.compression = compression

    def _pieces(self, row: TokenRow) -> list[TokenRow]:
        """The row, or halves of it that fit, in the order of their scores."""
        if row.tokens <= self.part_tokens or row.sequences == 1:
            return [row]
        return [piece for half in row.halves() for piece in self._pieces(half)]

    def _logits(self, step: int, row: TokenRow) -> Tensor:
        """Scores with the row's own random numbers, so that a second pass repeats the dropout of the first."""
        key = hashlib.blake2b(row.ids.tobytes(), digest_size=7, key=f"{self.seed}:{step}".encode())
        torch.manual_seed(int.from_bytes(key.digest(), "little"))
        return self.model.logits(row)


def _cut(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of adjacent groups in parts of at most `most` tokens, at least one group each."""
    parts: list[list[int]] = [[0]]
    spent = sizes[0]
    for number, size in enumerate(sizes[1:], 1):
        if spent + size > most:
            parts.append([])
            spent = 0
        parts[-1].append(number)
        spent += size
    return parts
