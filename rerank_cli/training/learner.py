"""The model of a training run and what computes its steps, by the configuration and the family's defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rerank_cli.choices import LayerLoss, Loss, TrainedLayers
from rerank_cli.engine.contract import StopRequested
from rerank_cli.errors import UsageError
from rerank_cli.models.adapters import LoraSettings
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.decoders.layered import Compression
from rerank_cli.models.known import ENCODER, LAYERWISE, LIGHTWEIGHT, MODULAR
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.trainable import TrainedPart, freeze, freeze_without_gradient
from rerank_cli.training.contract import DrawnGroup, TrainingData
from rerank_cli.training.losses import LossSettings
from rerank_cli.training.memory import part_tokens_for
from rerank_cli.training.optimizer import Optimizer, OptimizerSettings
from rerank_cli.training.options import LoraOptions, LossOptions, TrainConfig
from rerank_cli.training.processes import Processes
from rerank_cli.training.setup import OpenModel, open_model
from rerank_cli.training.step import CompressionChoice, StepReport, Trainer
from rerank_cli.training.tokens import GroupTokenizer, Lengths, TokenizedGroups

if TYPE_CHECKING:
    from rerank_cli.training.sharding import Sharding

_QUERY_LENGTH = 512  # of FlagEmbedding's rule, if only the passage's is given: that of the published recipes
_CHUNK = 4096  # pairs that are scored between two looks at signals
_KEPT_TOKENS = 20_000_000  # of held-out pairs, kept as ids between evaluations


@dataclass(slots=True)
class Learner:
    """A model in training. `read` tokenizes pairs as the finished model is to read them."""

    opened: OpenModel
    trainer: Trainer
    read: GroupTokenizer
    processes: Processes = field(default_factory=Processes)
    _kept: list[TokenizedGroups] = field(default_factory=list)

    def step(self, step: int, rate: float, groups: Sequence[DrawnGroup]) -> StepReport:
        return self.trainer.run(step, rate, self.processes.share(groups), groups)

    def rehearse(self, groups: Sequence[DrawnGroup]) -> StepReport:
        """Compute the gradients of the longest groups and drop them: if memory runs out, it does so before step one.

        The batch is then computed in parts, and so are later ones. Raises ModelError if a single pair does not fit.
        """
        self.trainer.optimizer.allocate()
        found = self.trainer.gradients(0, self.processes.share(groups), groups)
        self.trainer.optimizer.clear()
        return found

    @property
    def sharding(self) -> Sharding | None:
        return self.trainer.sharding

    def saved(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The trained tensors by name, and those of the optimizer.

        All processes call it if the model is sharded, and the first alone gets them.
        """
        weights, optimizer = self.opened.trainable.trained, self.trainer.optimizer.state()
        if self.sharding is None:
            return weights, optimizer
        return self.sharding.collected(weights), self.sharding.collected(optimizer)

    def finished(self) -> Learner:
        """The same with a model that can be written. All processes call it if the model is sharded."""
        if self.sharding is None:
            return self
        whole = self.sharding.whole_model(self.opened.trainable)
        return replace(self, opened=replace(self.opened, trainable=whole))

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the trained tensors. Raises KeyError or RuntimeError if they are of another model."""
        for name, weight in self.opened.trainable.trained.items():
            weight.copy_(self.sharding.part_of(weights[name], weight) if self.sharding else weights[name])

    def scores(self, groups: Sequence[DrawnGroup], should_stop: Callable[[], bool]) -> Iterator[Sequence[float]]:
        """The logits of the deepest layer for each group, without dropout. Raises StopRequested.

        Several processes score a part each, and cannot be stopped meanwhile.
        """
        if self.processes.count == 1:
            yield from self._scores(groups, groups, should_stop)
            return
        own = self.processes.share(groups)
        parts = self.processes.gather(list(self._scores(own, groups, lambda: False)))
        for place in range(len(groups)):
            yield parts[place % self.processes.count][place // self.processes.count]

    def _scores(
        self, groups: Sequence[DrawnGroup], everyone: Sequence[DrawnGroup], should_stop: Callable[[], bool]
    ) -> Iterator[Sequence[float]]:
        model = self.opened.trainable
        model.train(False)
        compression = getattr(model.model, "compression", None)
        if compression is not None:
            model.model.compression = Compression()  # type: ignore[attr-defined]
        try:
            for members, tokenized in self._chunks(groups):
                if should_stop():
                    raise StopRequested
                rows = self._filled(tokenized.rows, everyone)
                found = self._computed(rows)[: sum(row.sequences for row in tokenized.rows)]
                deepest = (found if found.dim() == 1 else found[:, -1])[torch.from_numpy(tokenized.places)]
                parts = torch.split(deepest, [len(group.passages) for group in members])
                yield from (part.tolist() for part in parts)
            while rows := self._filled([], everyone):  # until the other processes are done too
                self._computed(rows)
        finally:
            model.train()
            if compression is not None:
                model.model.compression = compression  # type: ignore[attr-defined]

    def _filled(self, rows: Sequence[TokenRow], everyone: Sequence[DrawnGroup]) -> Sequence[TokenRow]:
        """The rows and, if the model is sharded, as many more as the other processes have."""
        if self.sharding is None:
            return rows
        most = self.sharding.most([(len(rows), False)] if rows else [])
        missing = most[0][0] - len(rows) if most else 0
        return [*rows, *([self.read.first_pair(everyone[0])] * missing)] if missing else rows

    @torch.no_grad()
    def _computed(self, rows: Sequence[TokenRow]) -> Tensor:
        """The scores of the rows, [n] or [n, layers]."""
        return torch.cat([self.opened.trainable.logits(row) for row in rows]).float().cpu()

    def _chunks(self, groups: Sequence[DrawnGroup]) -> Iterator[tuple[Sequence[DrawnGroup], TokenizedGroups]]:
        """Groups in chunks with their rows, which are kept for the next time if there is room."""
        begin = number = tokens = 0
        while begin < len(groups):
            end, pairs = begin, 0
            while end < len(groups) and (end == begin or pairs + len(groups[end].passages) <= _CHUNK):
                pairs += len(groups[end].passages)
                end += 1
            known = self._kept[number] if number < len(self._kept) else None
            found = known or self.read.tokenize(groups[begin:end])
            tokens += int(found.tokens.sum())
            if known is None and number == len(self._kept) and tokens <= _KEPT_TOKENS:
                self._kept.append(found)
            yield groups[begin:end], found
            begin, number = end, number + 1


def uses_lora(config: TrainConfig, family: str) -> bool:
    """Whether adapters are trained: as asked, else for all but encoders."""
    return family not in (ENCODER, MODULAR) if config.lora.wanted is None else config.lora.wanted


def optimizer_settings(config: TrainConfig, family: str) -> OptimizerSettings:
    rates = config.rates
    lr = rates.lr if rates.lr is not None else 2e-4 if uses_lora(config, family) else 2e-5
    return OptimizerSettings(lr, rates.weight_decay, warmup=rates.warmup, schedule=rates.schedule, clip=rates.clip)


def loss_settings(config: TrainConfig, data: TrainingData, teaches: int) -> LossSettings:
    """The loss; by default with the teacher's scores, if all groups (`teaches` of them) have some. UsageError."""
    given = config.loss
    kind = given.kind or (Loss.DISTIL if teaches == len(data) else Loss.CE)
    if given.kind is None and 0 < teaches < len(data):
        what = f"{teaches:,} of {len(data):,} groups have teacher scores"
        raise UsageError(f"{what}, so the loss is not clear. Fix: --loss ce, or scores for all (rerank run)")
    _refuse_unused(given, kind)
    if config.group_size < 2 and kind not in (Loss.BCE, Loss.MSE):
        raise UsageError(f"--group-size 1: --loss {kind.value} compares passages of a query (expected 2 or more)")
    if kind in (Loss.LISTNET, Loss.LAMBDARANK) and data.single == len(data):
        what = "compares passages of a query, and every group has only one"
        raise UsageError(f"--loss {kind.value}: {what}. Fix: --sort, if rows of one query are apart")
    layers = LayerLoss.LAST if given.layers is None else given.layers
    if given.layers not in (None, LayerLoss.NONE) and kind in (Loss.BCE, Loss.MSE):
        what = f"--loss {kind.value} is the same for all layers, which do not teach each other"
        raise UsageError(f"--layer-loss {layers.value}: {what}. Fix: leave it out")
    found = LossSettings(kind, given.ce_weight, given.distil_weight, given.temperature, given.pos_weight, layers)
    by_layer = found.layers in (LayerLoss.FINAL, LayerLoss.FIXED)
    if (found.needs_teacher or by_layer) and teaches < len(data):
        what = f"{len(data) - teaches:,} of {len(data):,} groups have no teacher scores"
        flag = f"--layer-loss {found.layers.value}" if by_layer else f"--loss {kind.value}"
        raise UsageError(f"{flag}: {what}. Fix: rerank run writes them into pos_scores and neg_scores")
    return found


def _refuse_unused(given: LossOptions, kind: Loss) -> None:
    """Raise UsageError for a setting of another loss."""
    plain = LossOptions()
    for name, flag, of in (
        ("ce_weight", "--ce-weight", Loss.DISTIL),
        ("distil_weight", "--distil-weight", Loss.DISTIL),
        ("temperature", "--distil-temperature", Loss.DISTIL),
        ("pos_weight", "--pos-weight", Loss.BCE),
    ):
        if getattr(given, name) != getattr(plain, name) and kind is not of:
            raise UsageError(f"{flag} is for --loss {of.value} (got {kind.value}). Fix: leave it out")


def open_learner(
    config: TrainConfig, checkpoint: Checkpoint, family: str, loss: LossSettings, processes: Processes
) -> Learner:
    """Load the model and make its optimizer. Raises ModelError and UsageError."""
    torch.manual_seed(config.seed)  # of adapters and heads that are new
    lora = config.lora
    if not uses_lora(config, family) and replace(lora, wanted=None) != LoraOptions():
        raise UsageError("--lora-rank, --lora-alpha, --lora-dropout and --lora-targets need --lora")
    if not uses_lora(config, family) and not config.merge:
        raise UsageError("--no-merge needs --lora")
    if not config.merge and checkpoint.adapter is not None:
        what = f"{checkpoint.name} has an adapter already, and another cannot be put beside it"
        raise UsageError(f"--no-merge: {what}. Fix: leave it out")
    if not config.merge and (family == MODULAR or checkpoint.made):
        raise UsageError(
            f"--no-merge: {checkpoint.name} has no head that an adapter could be put beside. Fix: leave it out"
        )
    settings = LoraSettings(lora.rank, lora.alpha, lora.dropout, lora.targets) if uses_lora(config, family) else None
    if settings and config.dropout is not None:
        settings = replace(settings, dropout=config.dropout)
    part = TrainedPart(
        settings, config.dropout, config.attention_dropout, _layers(config, family, checkpoint), config.recompute
    )
    lengths = lengths_of(config)
    opened, sharding = _open(config, part, lengths, checkpoint, loss, processes)
    reserved = sharding.reserved(list(opened.trainable.trained.values())) if sharding else None
    part_tokens = part_tokens_for(opened.trainable, config.recompute, reserved)
    if sharding:  # which cannot make parts smaller later, when memory runs out
        part_tokens = min([*processes.gather(part_tokens), config.model.batch_tokens or part_tokens])
    trainer = Trainer(
        opened.trainable,
        opened.tokenizer,
        loss,
        Optimizer(opened.trainable.trained, optimizer_settings(config, family), sharding),
        config.seed,
        part_tokens,
        compression=_compression(config, family, checkpoint),
        reduce=processes.add if processes.count > 1 else None,
        sharding=sharding,
    )
    total = None if lengths.query is None or lengths.passage is None else lengths.query + lengths.passage
    reading = Lengths(total, lengths.query) if total else lengths
    return Learner(opened, trainer, replace(opened.tokenizer, lengths=reading, _known={}), processes)


def _open(
    config: TrainConfig,
    part: TrainedPart,
    lengths: Lengths,
    checkpoint: Checkpoint,
    loss: LossSettings,
    processes: Processes,
) -> tuple[OpenModel, Sharding | None]:
    """The model, divided over the processes if that is asked for."""
    options = processes.shards
    if options is None:
        opened = open_model(config.model, part, lengths, checkpoint)
        freeze_without_gradient(opened.trainable, loss.shift_invariant)
        freeze(opened.trainable, config.freeze)
        return opened, None
    from rerank_cli.training.sharding import shard, turn

    with turn(options, processes):
        opened = open_model(config.model, part, lengths, checkpoint, on_host=True)
        freeze_without_gradient(opened.trainable, loss.shift_invariant)
        freeze(opened.trainable, config.freeze)
        return opened, shard(opened.trainable, options, processes)


def lengths_of(config: TrainConfig) -> Lengths:
    """The scoring rule, or FlagEmbedding's if the passage has a maximum of its own."""
    model, passage = config.model, config.passage_max_length
    if passage is None:
        return Lengths(model.max_length, model.query_max_length)
    if model.max_length is not None:
        raise UsageError("--max-length and --passage-max-length: give one of them")
    return Lengths(query=model.query_max_length or _QUERY_LENGTH, passage=passage)


def _layers(config: TrainConfig, family: str, checkpoint: Checkpoint) -> tuple[int, ...] | None:
    """The layers that are trained, None for all that have a head. Raises UsageError."""
    if family not in (LAYERWISE, LIGHTWEIGHT):
        for flag, given in (
            ("--start-layer", config.start_layer),
            ("--layers last", config.layers is TrainedLayers.LAST),
            ("--layer-loss", config.loss.layers),
        ):
            if given:
                raise UsageError(f"{flag}: {checkpoint.name} has no heads on several layers. Fix: leave it out")
        return None
    defaults = (8, 32, 1) if family == LAYERWISE else (28, None, 28)
    names = ("start_layer", "num_hidden_layers", "layer_sep" if family == LIGHTWEIGHT else "")
    first, last, apart = (checkpoint.config.get(name, value) for name, value in zip(names, defaults, strict=True))
    known = range(int(first), int(last) + 1, int(apart))
    if config.layers is TrainedLayers.LAST:
        return (known[-1],)
    start = known[0] if config.start_layer is None else config.start_layer
    found = tuple(layer for layer in known if layer >= start)
    if not found or start < known[0]:
        raise UsageError(f"--start-layer {start}: expected {known[0]} to {known[-1]}, which have heads")
    return found


def _compression(config: TrainConfig, family: str, checkpoint: Checkpoint) -> CompressionChoice:
    """What a lightweight model compresses while training: as its authors do, unless flags say something else."""
    if family != LIGHTWEIGHT:
        return CompressionChoice()
    given = config.model.family
    layers = given.compress_layers or tuple(range(8, int(checkpoint.config["num_hidden_layers"]), 8))
    ratios = (1, 2, 4, 8) if given.compress_ratio is None else (given.compress_ratio,)
    return CompressionChoice(layers, ratios)
