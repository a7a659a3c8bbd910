"""Messages between a job and its workers, all picklable. A worker works on one task at a time, in the order received,
so that answers need not name their task.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from rerank_cli.engine.contract import ModelFacts, Sizes, Work
from rerank_cli.engine.results import Logits, PairScores
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.run.recovery.journal import CarriedNotes


class WorkerFailure(Exception):
    """A worker's exception whose own class cannot be raised in the job: `NameOfTheClass: message`."""


class DeviceLost(Exception):
    """The worker's device no longer works for its process."""


class Score(NamedTuple):
    """Order: score these pairs, except rows that `notes` holds."""

    texts: PairTexts
    notes: CarriedNotes


class ScorePlainly(NamedTuple):
    """Order: score these pairs with the stock model."""

    texts: PairTexts


class Resize(NamedTuple):
    """Order, before the first task: plan rows of this many tokens, like the other workers."""

    batch_tokens: int


class Halt(NamedTuple):
    """Order: finish the current row, then stop."""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of a worker since it started: what its device computed, and seconds by stage."""

    work: Work = field(default_factory=Work)
    seconds: dict[str, float] = field(default_factory=dict)


class Opened(NamedTuple):
    """Answer: the model is loaded."""

    facts: ModelFacts
    sizes: Sizes


class RowDone(NamedTuple):
    """Answer: a row of the current task is scored. For pairs and scores see `contract.RowNotes`."""

    pairs: Index
    scores: Logits


class RowCounted(NamedTuple):
    """Answer, after each row of the current task, known ones too: its pairs and tokens, see `local.CountedNotes`."""

    pairs: float
    tokens: float


class TaskDone(NamedTuple):
    """Answer: all rows of the current task are scored."""

    scores: PairScores
    report: Report


class PlainDone(NamedTuple):
    """Answer to `ScorePlainly`."""

    scores: Logits


class Halted(NamedTuple):
    """Last answer of a worker, to `Halt`."""

    report: Report


class Failed(NamedTuple):
    """Last answer of a worker that raised. The error has the traceback as a note, except DeviceLost."""

    error: Exception


class Logged(NamedTuple):
    """Answer: a line of the worker's log."""

    logger: str
    level: int
    text: str


Order: TypeAlias = Score | ScorePlainly | Resize | Halt
Answer: TypeAlias = Opened | RowDone | RowCounted | TaskDone | PlainDone | Halted | Failed | Logged
