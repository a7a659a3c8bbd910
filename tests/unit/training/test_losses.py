"""Losses against their definitions, and against sentence-transformers' where that is installed."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from rerank_cli.choices import LayerLoss, Loss
from rerank_cli.errors import UsageError
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.losses import LossSettings, loss_of, targets_of

CPU = torch.device("cpu")


def group(size, place=0, labels=None, seed=0):
    teacher = tuple(np.random.default_rng((seed, place)).normal(size=size).tolist())
    return DrawnGroup(place, "q", ("p",) * size, teacher, labels or (1.0, *[0.0] * (size - 1)))


def scores_for(groups, seed=1):
    torch.manual_seed(seed)
    return torch.randn(sum(len(one.passages) for one in groups))


def mean(scores, groups, settings):
    return loss_of(scores, targets_of(groups, settings, CPU), settings) / settings.units(groups)


GRADED = [group(4, 0, (2.0, 0.0, 1.0, 0.0)), group(2, 1, (1.0, 0.0)), group(3, 2, (0.0, 3.0, 1.0))]


def test_cross_entropy_is_torchs():
    groups = [group(3, place) for place in range(4)]
    scores = scores_for(groups)
    expected = cross_entropy(scores.view(4, 3), torch.zeros(4, dtype=torch.long))
    assert torch.allclose(mean(scores, groups, LossSettings()), expected)


@pytest.mark.parametrize("kind", Loss)
def test_groups_of_different_sizes_are_computed_as_each_alone(kind):
    settings = LossSettings(kind, pos_weight=3.0)
    scores = scores_for(GRADED).requires_grad_()
    whole = loss_of(scores, targets_of(GRADED, settings, CPU), settings)
    parts = [
        loss_of(part, targets_of([one], settings, CPU), settings)
        for one, part in zip(GRADED, scores.split([4, 2, 3]), strict=True)
    ]
    assert torch.allclose(whole, sum(parts))
    (whole / settings.units(GRADED)).backward()
    assert scores.grad.isfinite().all()
    assert settings.units(GRADED) == sum(settings.units([one]) for one in GRADED)


@pytest.mark.parametrize("kind", Loss)
def test_losses_that_are_said_not_to_change_with_a_constant_do_not(kind):
    settings = LossSettings(kind)
    scores = scores_for(GRADED)
    same = torch.allclose(mean(scores, GRADED, settings), mean(scores + 3, GRADED, settings), atol=1e-5)
    assert same == settings.shift_invariant


def test_distillation_has_weights_and_a_temperature():
    one = [group(3)]
    scores, teacher = scores_for(one), torch.tensor(one[0].teacher)
    settings = LossSettings(Loss.DISTIL, ce_weight=0.5, distil_weight=2.0, temperature=4.0)
    taught = -((teacher / 4).softmax(0) * (scores / 4).log_softmax(0)).sum() * 16
    assert torch.allclose(mean(scores, one, settings), -0.5 * scores.log_softmax(0)[0] + 2 * taught)


def test_margins_are_those_to_the_first_passage():
    one = [group(3)]
    scores, teacher = scores_for(one), torch.tensor(one[0].teacher)
    expected = ((scores[0] - scores[1:]) - (teacher[0] - teacher[1:])).square().mean()
    assert torch.allclose(mean(scores, one, LossSettings(Loss.MARGIN_MSE)), expected)


def test_single_values_are_averaged_over_passages():
    scores = scores_for(GRADED)
    labels = torch.tensor([label for one in GRADED for label in one.labels])
    assert torch.allclose(mean(scores, GRADED, LossSettings(Loss.MSE)), (scores - labels).square().mean())
    binary = [group(3, place) for place in range(2)]
    scores = scores_for(binary)
    p = scores.sigmoid()
    labels = torch.tensor([1.0, 0, 0, 1.0, 0, 0])
    expected = -(5 * labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    assert torch.allclose(mean(scores, binary, LossSettings(Loss.BCE, pos_weight=5.0)), expected)


def test_lambda_rank_is_its_definition():
    total, pairs = 0.0, 0
    scores = scores_for(GRADED)
    for one, part in zip(GRADED, scores.split([4, 2, 3]), strict=True):
        found, labels = part.tolist(), one.labels
        rank = {n: place for place, n in enumerate(sorted(range(len(found)), key=lambda n: -found[n]), 1)}
        best = sum((2**label - 1) / math.log2(place + 1) for place, label in enumerate(sorted(labels, reverse=True), 1))
        for i, a in enumerate(labels):
            for j, b in enumerate(labels):
                if a > b:
                    weight = abs(2**a - 2**b) / best * abs(1 / math.log2(rank[i] + 1) - 1 / math.log2(rank[j] + 1))
                    total -= weight * math.log2(1 / (1 + math.exp(found[j] - found[i])))
                    pairs += 1
    assert float(mean(scores, GRADED, LossSettings(Loss.LAMBDARANK))) == pytest.approx(total / pairs, rel=1e-5)


class Scored(torch.nn.Module):
    """A stand-in for a CrossEncoder of sentence-transformers, which gives the next of the scores for each pair."""

    num_labels, device = 1, CPU
    activation_fn = torch.nn.Identity()

    def __init__(self, scores):
        super().__init__()
        self.scores, self.place = scores, 0

    def preprocess(self, pairs, **_):
        self.place += len(pairs)
        return {"scores": self.scores[self.place - len(pairs) : self.place]}

    def forward(self, features):
        return features


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [Loss.LISTNET, Loss.LAMBDARANK])
def test_listwise_losses_are_those_of_sentence_transformers(kind):
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    scores = scores_for(GRADED)
    model = Scored(scores)
    theirs = (
        losses.ListNetLoss(model)
        if kind is Loss.LISTNET
        else losses.LambdaLoss(model, weighting_scheme=losses.LambdaRankScheme())
    )
    texts = [[one.query for one in GRADED], [list(one.passages) for one in GRADED]]
    expected = theirs(texts, [torch.tensor(one.labels) for one in GRADED])
    assert float(mean(scores, GRADED, LossSettings(kind))) == pytest.approx(float(expected), rel=1e-5)


def layered(scores, groups, settings, uncompressed=None):
    return loss_of(scores, targets_of(groups, settings, CPU), settings, uncompressed)


def test_the_last_layer_teaches_the_others_without_a_gradient():
    one = [group(3)]
    scores = torch.randn(3, 2, requires_grad=True)
    found = layered(scores, one, LossSettings())
    first, last = scores[:, 0], scores[:, 1]
    expected = (
        -first.log_softmax(0)[0] - last.log_softmax(0)[0] - (last.detach().softmax(0) * first.log_softmax(0)).sum()
    )
    assert torch.allclose(found, expected)
    found.backward()
    alone = scores.detach()[:, 1].requires_grad_()
    (-alone.log_softmax(0)[0]).backward()
    assert torch.allclose(scores.grad[:, 1], alone.grad)


def test_every_eighth_layer_from_the_last_teaches_those_below_it():
    one = [group(3)]
    scores, plain = torch.randn(3, 10), torch.randn(3, 10)
    logs, teacher = scores.log_softmax(0), torch.tensor(one[0].teacher).softmax(0)
    expected = -logs[0].sum() - (teacher[:, None] * logs).sum()
    for layer, source in ((0, 1), *((layer, 9) for layer in range(1, 9))):
        expected -= (plain[:, source].softmax(0) * logs[:, layer]).sum()
    assert torch.allclose(layered(scores, one, LossSettings(layers=LayerLoss.FIXED), plain), expected)


def test_a_group_without_what_the_loss_needs_is_named():
    bare = [DrawnGroup(6, "q", ("a", "b"))]
    for settings, what in (
        (LossSettings(Loss.DISTIL), "teacher scores"),
        (LossSettings(layers=LayerLoss.FINAL), "teacher scores"),
        (LossSettings(Loss.MSE), "labels"),
    ):
        with pytest.raises(UsageError, match=f"record 7 has no {what}"):
            targets_of(bare, settings, CPU)
