"""What a job and its worker processes say to each other, through one pipe each.

Everything here can be pickled. A worker answers tasks in the order it was given them, row by row.
"""

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
    """An exception of a worker that cannot be told here by its own class: `NameOfTheClass: message`."""


@dataclass(frozen=True, slots=True)
class Task:
    """To a worker: score these pairs; rows that the notes know are not scored again."""

    number: int
    texts: PairTexts
    notes: CarriedNotes


@dataclass(frozen=True, slots=True)
class Plain:
    """To a worker: score these pairs as the stock model does."""

    texts: PairTexts


@dataclass(frozen=True, slots=True)
class Resize:
    """To a worker, before its first task: plan rows of so many tokens, as all the others do."""

    batch_tokens: int


@dataclass(frozen=True, slots=True)
class Halt:
    """To a worker: finish the row at hand, and no more."""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of a worker since it began: what its device was given, and seconds by stage."""

    work: Work = field(default_factory=Work)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """The model is loaded."""

    facts: ModelFacts
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class RowDone:
    """A row of a task: the distinct pairs in it and their scores, as `contract.RowNotes` gets them."""

    number: int
    pairs: Index
    scores: Scores


@dataclass(frozen=True, slots=True)
class TaskDone:
    number: int
    scores: PairScores
    report: Report


@dataclass(frozen=True, slots=True)
class PlainDone:
    scores: Scores


@dataclass(frozen=True, slots=True)
class Halted:
    """The last word of a worker that was told to halt."""

    report: Report


@dataclass(frozen=True, slots=True)
class Failed:
    """The last word of a worker in which something was raised; the error has the traceback as a note."""

    error: Exception


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """The last word of a worker whose device takes no more work from this process."""

    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a worker's log."""

    logger: str
    level: int
    text: str


Order: TypeAlias = Task | Plain | Resize | Halt
Answer: TypeAlias = Opened | RowDone | TaskDone | PlainDone | Halted | Failed | DeviceLost | Said
