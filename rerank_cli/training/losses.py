"""Losses of groups: scores in fp32 to the sum over a batch's units, which a step divides by their number.

A unit is a group; a passage, for losses of single values; a pair of passages, for losses of differences. A batch may be
computed in parts: the sums of the parts add up, and each part can be differentiated alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from rerank_cli.choices import LayerLoss, Loss
from rerank_cli.errors import UsageError
from rerank_cli.training.contract import DrawnGroup

# Losses that do not change if a number is added to all scores of a group.
_SHIFT_INVARIANT = {Loss.CE, Loss.DISTIL, Loss.MARGIN_MSE, Loss.LISTNET, Loss.LAMBDARANK}
_OF_PASSAGES = {Loss.BCE, Loss.MSE}


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What is minimised.

    `distil` is the sum of the cross-entropy with the positive, times `ce_weight`, and of that with the teacher, times
    `distil_weight`; both score distributions are softened by `temperature`, and the second term is multiplied by its
    square, so that gradients keep their size. `pos_weight` multiplies the positive part of the binary cross-entropy.
    `layers` is how the layers of a layered model teach each other.
    """

    kind: Loss = Loss.CE
    ce_weight: float = 1.0
    distil_weight: float = 1.0
    temperature: float = 1.0
    pos_weight: float = 1.0
    layers: LayerLoss = LayerLoss.LAST

    @property
    def shift_invariant(self) -> bool:
        return self.kind in _SHIFT_INVARIANT

    @property
    def needs_teacher(self) -> bool:
        """Whether every group must have teacher scores."""
        return self.kind in {Loss.DISTIL, Loss.MARGIN_MSE}

    @property
    def needs_labels(self) -> bool:
        return self.kind in {Loss.BCE, Loss.MSE, Loss.LISTNET, Loss.LAMBDARANK}

    @property
    def reads_uncompressed(self) -> bool:
        """Whether the last layer teaches by the scores that it gives without compression."""
        return self.layers in {LayerLoss.FINAL, LayerLoss.FIXED}

    def units(self, groups: Sequence[DrawnGroup]) -> int:
        """By what the sum over these groups is divided."""
        if self.kind in _OF_PASSAGES:
            return sum(len(group.passages) for group in groups)
        if self.kind is Loss.MARGIN_MSE:
            return sum(len(group.passages) - 1 for group in groups)
        if self.kind is Loss.LAMBDARANK:
            return sum(_unequal(group.labels or ()) for group in groups)
        return len(groups)


def _unequal(labels: Sequence[float]) -> int:
    """The number of pairs with different labels."""
    same = sum(count * count for count in Counter(labels).values())
    return (len(labels) ** 2 - same) // 2


@dataclass(frozen=True, slots=True)
class Targets:
    """G groups of up to g passages: `present` bool [G, g]; `teacher` and `labels` fp32 [G, g], None if not needed."""

    present: Tensor
    teacher: Tensor | None
    labels: Tensor | None

    def matrix(self, scores: Tensor, empty: float = -math.inf) -> Tensor:
        """Scores [n] of all groups as [G, g], filled up with `empty`."""
        found = scores.new_full(self.present.shape, empty)
        found[self.present] = scores
        return found


def targets_of(groups: Sequence[DrawnGroup], settings: LossSettings, device: torch.device) -> Targets:
    """Raises UsageError for a group without the values that the loss needs."""
    widest = max(len(group.passages) for group in groups)
    lengths = torch.tensor([len(group.passages) for group in groups])
    present = torch.arange(widest) < lengths[:, None]

    def values(name: str, needed: bool) -> Tensor | None:
        if not needed:
            return None
        found = torch.zeros(present.shape)
        for number, group in enumerate(groups):
            given = getattr(group, name)
            if given is None:
                what = "teacher scores" if name == "teacher" else "labels"
                raise UsageError(f"--loss {settings.kind.value}: record {group.place + 1} has no {what}")
            found[number, : len(given)] = torch.tensor(given)
        return found.to(device)

    teacher = settings.needs_teacher or settings.layers in {LayerLoss.FINAL, LayerLoss.FIXED}
    return Targets(present.to(device), values("teacher", teacher), values("labels", settings.needs_labels))


def loss_of(scores: Tensor, targets: Targets, settings: LossSettings, uncompressed: Tensor | None = None) -> Tensor:
    """The sum over units, fp32 [], of scores [n] or [n, layers], the last layer last.

    Source of the terms between layers: FlagEmbedding 1.4, `finetune/reranker/decoder_only/layerwise/modeling.py`, and
    `research/Matroyshka_reranker/finetune/self_distillation/modeling.py`. `uncompressed` [n, layers] are the scores of
    the same passages without compression.
    """
    if scores.dim() == 1:
        return _loss(scores, targets, settings)
    layers = [scores[:, layer] for layer in range(scores.shape[1])]
    total = torch.stack([_loss(layer, targets, settings) for layer in layers]).sum()
    if settings.layers is LayerLoss.NONE or not settings.shift_invariant:
        return total
    if settings.layers is LayerLoss.LAST:
        if settings.kind is Loss.DISTIL:  # the teacher has taught all layers
            return total
        taught = [_distilled(layer, targets.matrix(layers[-1].detach()), targets) for layer in layers[:-1]]
        return total + sum(taught, scores.new_zeros(()))
    source = scores.detach() if uncompressed is None else uncompressed.detach()
    return total + _matryoshka([*layers], source, targets, settings.layers)


def _matryoshka(layers: list[Tensor], source: Tensor, targets: Targets, how: LayerLoss) -> Tensor:
    """FINAL: the teacher teaches the last layer, which teaches the others. FIXED: the teacher teaches every layer, and
    every eighth layer below the last, and the last, those between it and the next.
    """
    assert targets.teacher is not None
    given = targets.teacher.masked_fill(~targets.present, -math.inf)
    total = layers[-1].new_zeros(())
    own: Tensor | None = None
    for number, layer in enumerate(reversed(layers)):
        if how is LayerLoss.FIXED or number == 0:
            total = total + _distilled(layer, given, targets)
        if own is not None:
            total = total + _distilled(layer, own, targets)
        if number == 0 or (how is LayerLoss.FIXED and number % 8 == 0):
            own = targets.matrix(source[:, len(layers) - 1 - number])
    return total


def _loss(scores: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    scores = scores.float()
    if settings.kind is Loss.CE:
        return _cross_entropy(scores, targets)
    if settings.kind is Loss.DISTIL:
        assert targets.teacher is not None
        given = targets.teacher.masked_fill(~targets.present, -math.inf)
        taught = _distilled(scores, given, targets, settings.temperature)
        return settings.ce_weight * _cross_entropy(scores, targets) + settings.distil_weight * taught
    if settings.kind is Loss.MARGIN_MSE:
        assert targets.teacher is not None
        matrix, given = targets.matrix(scores, 0.0), targets.teacher
        differences = (matrix[:, :1] - matrix) - (given[:, :1] - given)
        return (differences.square() * targets.present)[:, 1:].sum()
    assert targets.labels is not None
    if settings.kind in _OF_PASSAGES:
        labels = targets.labels[targets.present]
        if settings.kind is Loss.MSE:
            return (scores - labels).square().sum()
        weight = scores.new_tensor(settings.pos_weight)
        return binary_cross_entropy_with_logits(scores, labels, pos_weight=weight, reduction="sum")
    if settings.kind is Loss.LISTNET:
        return _distilled(scores, targets.labels.masked_fill(~targets.present, -math.inf), targets)
    return _lambda_rank(targets.matrix(scores), targets.labels, targets.present)


def _cross_entropy(scores: Tensor, targets: Targets) -> Tensor:
    """−log softmax of the first passage, summed over groups."""
    return -targets.matrix(scores).log_softmax(dim=1)[:, 0].sum()


def _distilled(scores: Tensor, given: Tensor, targets: Targets, temperature: float = 1.0) -> Tensor:
    """−Σ softmax(given) · log softmax(scores), summed over groups; `given` [G, g] is −∞ where there is no passage.

    With labels as given scores it is ListNet: Cao et al., "Learning to Rank: From Pairwise Approach to Listwise
    Approach", ICML 2007.
    """
    logs = (targets.matrix(scores.float()) / temperature).log_softmax(dim=1).masked_fill(~targets.present, 0.0)
    return -((given / temperature).softmax(dim=1) * logs).sum() * temperature**2


def _lambda_rank(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """LambdaLoss with the weights of LambdaRank, summed over the pairs of a group that have different labels.

    A pair with labels a > b costs −w · log₂ σ(s_a − s_b) with w = |Δ gain| · |Δ 1/discount| at the ranks that the
    scores give. Source: Wang et al., "The LambdaLoss Framework for Ranking Metric Optimization", CIKM 2018.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranked, relevance = scores.gather(1, order), labels.gather(1, order)
    there = present.gather(1, order)
    ideal = labels.masked_fill(~present, -math.inf).sort(dim=1, descending=True).values
    discounts = torch.log2(torch.arange(2, scores.shape[1] + 2, device=scores.device).float())
    best = ((2.0 ** ideal.clamp(min=0)) - 1).div(discounts).sum(dim=1, keepdim=True).clamp(min=1e-10)
    gains = ((2.0 ** relevance.clamp(min=0)) - 1) / best * there
    weights = (1 / discounts[:, None] - 1 / discounts).abs() * (gains[:, :, None] - gains[:, None, :]).abs()
    pairs = there[:, :, None] & there[:, None, :] & (relevance[:, :, None] > relevance[:, None, :])
    ranked = ranked.masked_fill(~there, 0.0)
    costs = -logsigmoid(ranked[:, :, None] - ranked[:, None, :]) * weights / math.log(2)
    return (costs * pairs).sum()
