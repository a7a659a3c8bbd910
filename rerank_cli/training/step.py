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
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from rerank_cli.errors import ModelError
from rerank_cli.models.decoders.layered import Compression
from rerank_cli.models.packed_row import Index, TokenRow
from rerank_cli.models.trainable import Trainable
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.losses import LossSettings, loss_of, targets_of
from rerank_cli.training.optimizer import Optimizer
from rerank_cli.training.tokens import GroupTokenizer, TokenizedGroups

if TYPE_CHECKING:
    from rerank_cli.training.sharding import Sharding

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


@dataclass(frozen=True, slots=True)
class _Part:
    """Groups that are computed together, their rows, and the places of their scores in those of the rows.

    If not all activations of the rows fit into memory, they are computed one by one.
    """

    groups: Sequence[DrawnGroup]
    rows: Sequence[TokenRow]
    places: Index
    one_by_one: bool


@dataclass(slots=True)
class Trainer:
    """Computes steps of a model. It has no other state than the model, the optimizer and `part_tokens`.

    `part_tokens` is the number of tokens whose activations are kept at once; it is halved when memory runs out. The
    random numbers of dropout depend on `seed`, the step and the row. `reduce` adds tensors over all processes in place.
    With `sharding` the model is divided over them: it adds the gradients itself, and running out of memory ends the
    run, as the other processes then wait for tensors of the layer at hand.
    """

    model: Trainable
    tokenizer: GroupTokenizer
    loss: LossSettings
    optimizer: Optimizer
    seed: int = 0
    part_tokens: int = 1 << 30
    compression: CompressionChoice = field(default_factory=CompressionChoice)
    reduce: Callable[[list[Tensor]], None] | None = None
    sharding: Sharding | None = None
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
                found = self._parts(step, groups, everyone, units)
                break
            except torch.OutOfMemoryError as error:
                if self.sharding is not None:
                    what = f"out of memory with activations of {self.part_tokens} tokens at once"
                    fix = "--recompute, a smaller --batch-tokens, or fsdp_offload_params"
                    raise ModelError(f"{what}. Fix: {fix}") from error
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
            self.reduce([total] if self.sharding else [total, *gradients])
            found = replace(found, loss=float(total))
        norm = self.optimizer.norm()
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

    def _parts(self, step: int, groups: Sequence[DrawnGroup], everyone: Sequence[DrawnGroup], units: int) -> StepReport:
        whole = self.tokenizer.tokenize(groups) if groups else None  # fewer groups in the batch than processes
        parts = self._planned(groups, whole) if whole else []
        calls = [(len(part.rows), part.one_by_one) for part in parts]
        more: list[TokenRow] = []
        if self.sharding is not None:
            calls = self.sharding.most(calls)
            more = [self.tokenizer.first_pair(everyone[0])]
        total, scores = 0.0, []
        for number, (count, one_by_one) in enumerate(calls):
            part = parts[number] if number < len(parts) else _Part((), (), np.empty(0, np.int64), False)
            loss, found = self._part(step, part, more * (count - len(part.rows)), one_by_one, units)
            total += loss
            scores.append(found)
        if whole is None:
            return StepReport(total, 0.0, 0, 0, 0, 0, torch.empty(0))
        pairs, tokens = len(whole.places), int(whole.tokens.sum())
        return StepReport(total, 0.0, pairs, tokens, whole.truncated, len(parts), torch.cat(scores[: len(parts)]))

    def _planned(self, groups: Sequence[DrawnGroup], whole: TokenizedGroups) -> list[_Part]:
        ends = np.cumsum([len(group.passages) for group in groups])
        sizes = np.diff(np.concatenate(([0], np.cumsum(whole.tokens)[ends - 1])))
        found = []
        for members in _cut(sizes.tolist(), self.part_tokens):
            part = [groups[member] for member in members]
            tokenized = whole if len(members) == len(groups) else self.tokenizer.tokenize(part)
            one_by_one = int(tokenized.tokens.sum()) > self.part_tokens
            rows = [piece for row in tokenized.rows for piece in (self._pieces(row) if one_by_one else [row])]
            found.append(_Part(part, rows, tokenized.places, one_by_one))
        return found

    def _part(
        self, step: int, part: _Part, more: Sequence[TokenRow], one_by_one: bool, units: int
    ) -> tuple[float, Tensor]:
        """The share of these groups in the loss, and their scores; adds to the gradients.

        The rows `more` are computed besides and do not count.
        """
        rows, own = [*part.rows, *more], len(part.rows)
        places = torch.from_numpy(part.places).to(self.model.device)
        uncompressed = self._uncompressed(step, rows, own, places)

        def share(scores: Tensor) -> Tensor:
            targets = targets_of(part.groups, self.loss, self.model.device)
            return loss_of(scores[places], targets, self.loss, uncompressed) / units

        if not one_by_one:
            found = [self._logits(step, row) for row in rows]
            scores = torch.cat(found[:own]) if own else torch.empty(0)
            loss = share(scores) if own else torch.zeros((), device=self.model.device)
            for nothing in found[own:]:
                loss = loss + 0.0 * nothing.sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach()), scores.detach()[places]
        with torch.no_grad():
            known = [self._logits(step, row) for row in rows]
        gradients = [torch.zeros_like(scores) for scores in known]
        total, scores = 0.0, torch.empty(0)
        if own:
            scores = torch.cat(known[:own]).requires_grad_()
            loss = share(scores)
            loss.backward()  # type: ignore[no-untyped-call]
            assert scores.grad is not None
            gradients[:own] = torch.split(scores.grad, [len(part) for part in known[:own]])
            total = float(loss.detach())
        for row, gradient in zip(rows, gradients, strict=True):
            self._logits(step, row).backward(gradient)  # type: ignore[no-untyped-call]
        return total, scores.detach()[places]

    def _uncompressed(self, step: int, rows: Sequence[TokenRow], own: int, places: Tensor) -> Tensor | None:
        """The scores [n, layers] of the first `own` rows without compression, if the loss reads them."""
        model = cast("Any", self.model.model)
        if not (self.loss.reads_uncompressed and hasattr(model, "compression")):
            return None
        compression, model.compression = model.compression, Compression()
        try:
            with torch.no_grad():
                found = [self._logits(step, row) for row in rows]
            return torch.cat(found[:own])[places] if own else None
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
