"""The configuration of a training run. Plain data; imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rerank_cli.choices import LayerLoss, Loss, OnChanged, Resume, Schedule, TrainedLayers
from rerank_cli.engine.options import ModelOptions
from rerank_cli.formats import InputOptions
from rerank_cli.training.data.open import DataOptions
from rerank_cli.training.data.rules import GroupRules


@dataclass(frozen=True, slots=True)
class HeldOutOptions:
    """What is evaluated while training: the judged queries of `input`, by `measures`, of which the first decides.

    It is evaluated before the first step, every `every` steps (None: ten times a run) and after the last. With
    `patience` the run ends after that many evaluations without a better one.
    """

    input: InputOptions
    qrels: str
    measures: str
    every: int | None = None
    patience: int | None = None


@dataclass(frozen=True, slots=True)
class LossOptions:
    """See `losses.LossSettings`. `kind` None: `distil` if all groups have teacher scores, else `ce`."""

    kind: Loss | None = None
    ce_weight: float = 1.0
    distil_weight: float = 1.0
    temperature: float = 1.0
    pos_weight: float = 1.0
    layers: LayerLoss | None = None


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """`wanted` None: adapters for decoders, all weights for encoders. The other values are peft's."""

    wanted: bool | None = None
    rank: int = 32
    alpha: float = 64.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rates:
    """See `optimizer.OptimizerSettings`. `lr` None: 2e-4 for adapters, else 2e-5."""

    lr: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Schedule = Schedule.LINEAR
    clip: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything a training run depends on. None selects the default of the family or the device; times in seconds.

    `passage_max_length` switches to FlagEmbedding's rule for lengths, see `tokens.Lengths`. `dropout` replaces the
    probabilities of the model's configuration. `start_layer` and `layers` are for layered models. `freeze` are patterns
    of names of tensors that stay as they are. `teacher` is a model that scores all groups first, into the file
    `teacher_scores`. `report_to` are trackers, see `trackers.Trackers`, which write into `report_dir`. `command` is the
    command line, for the model card.
    """

    model: ModelOptions
    data: DataOptions
    output: str
    group_size: int = 8
    batch_groups: int = 16
    epochs: float = 1.0
    max_steps: int | None = None
    seed: int = 0
    shuffle: bool = True
    loss: LossOptions = field(default_factory=LossOptions)
    lora: LoraOptions = field(default_factory=LoraOptions)
    rates: Rates = field(default_factory=Rates)
    passage_max_length: int | None = None
    dropout: float | None = None
    attention_dropout: float = 0.0
    start_layer: int | None = None
    layers: TrainedLayers = TrainedLayers.ALL
    freeze: tuple[str, ...] = ()
    recompute: bool = False
    merge: bool = True
    held_out: HeldOutOptions | None = None
    teacher: str | None = None
    teacher_scores: str | None = None
    log: str | None = None
    report_to: tuple[str, ...] = ()
    report_dir: str | None = None
    save_steps: int | None = None
    save_interval: float = 300.0
    max_duration: float | None = None
    resume: Resume = Resume.AUTO
    on_changed: OnChanged = OnChanged.FAIL
    overwrite: bool = False
    dry_run: bool = False
    progress_interval: float = 30.0
    notify: Callable[[str], None] = field(default=lambda _: None)
    command: str = ""

    @property
    def same_command(self) -> str:
        """How a message names the command that continues this run."""
        return "the same command" + (" without --restart or --resume never" if self.resume is Resume.NEVER else "")


_LABELLED = (Loss.BCE, Loss.MSE, Loss.LISTNET, Loss.LAMBDARANK)
_CHARACTERS = 8  # of a token, more than most have


def rules_of(config: TrainConfig) -> GroupRules:
    """How groups are drawn for the loss."""
    kind = config.loss.kind
    tokens = config.passage_max_length or config.model.max_length or 512
    return GroupRules(
        config.group_size,
        labelled=kind in _LABELLED,
        unit_labels=kind is Loss.BCE,
        teacher_labels=kind in (Loss.MSE, Loss.LISTNET),
        most_characters=_CHARACTERS * tokens,
    )
