"""Messages between a job and its workers. All can be pickled; a worker answers tasks in the order it got them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.contract import ModelFacts, Sizes, Work
from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.results import PairScores
from rerank_cli.run.recovery.journal import CarriedNotes

Scores = npt.NDArray[np.float32]


class WorkerFailure(Exception):
    """An exception of a worker that cannot be raised here as its own class: `NameOfTheClass: message`."""


@dataclass(frozen=True, slots=True)
class Score:
    """Order: score these pairs. Rows that `notes` holds are not scored again."""

    number: int
    texts: PairTexts
    notes: CarriedNotes


@dataclass(frozen=True, slots=True)
class ScorePlainly:
    """Order: score these pairs with the stock model."""

    texts: PairTexts


@dataclass(frozen=True, slots=True)
class Resize:
    """Order, before the first task: plan rows of so many tokens, like the other workers."""

    batch_tokens: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Order: finish the current row, then stop."""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of a worker since it started: what its device computed, and seconds by stage."""

    work: Work = field(default_factory=Work)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """Answer: the model is loaded."""

    facts: ModelFacts
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class RowDone:
    """Answer: a row of a task is scored, see `contract.RowNotes` for pairs and scores."""

    number: int
    pairs: Index
    scores: Scores


@dataclass(frozen=True, slots=True)
class TaskDone:
    """Answer: all rows of a task are scored."""

    number: int
    scores: PairScores
    report: Report


@dataclass(frozen=True, slots=True)
class PlainDone:
    """Answer to `ScorePlainly`."""

    scores: Scores


@dataclass(frozen=True, slots=True)
class Halted:
    """Last answer of a worker that was told to halt."""

    report: Report


@dataclass(frozen=True, slots=True)
class Failed:
    """Last answer of a worker that raised; the error has the traceback as a note."""

    error: Exception


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """Last answer of a worker whose device no longer works for this process."""

    reason: str


@dataclass(frozen=True, slots=True)
class Logged:
    """Answer: a line of the worker's log."""

    logger: str
    level: int
    text: str


Order: TypeAlias = Score | ScorePlainly | Resize | Halt
Answer: TypeAlias = Opened | RowDone | TaskDone | PlainDone | Halted | Failed | DeviceLost | Logged
