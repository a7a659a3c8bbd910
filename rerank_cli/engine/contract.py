"""What a job and an engine say to each other: options in, facts and figures out, and the session between them.

Plain data without torch, so that a bad flag or a bad file is told before seconds go into imports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import Quantize
from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import PairTexts, Prepared


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a summary says of the model that ran. `layers` are the cutoff layers of which each gives a score."""

    name: str
    revision: str
    family: str
    device: str
    dtype: str
    parameters: int
    packed: bool
    max_length: int
    query_max_length: int
    batch_tokens: int
    profile: str = "encoder"
    profile_is_guess: bool = False
    layers: tuple[int, ...] = ()
    quantize: str = Quantize.NONE.value
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Defaults that go by device: tokens in a packed row, pairs in a chunk."""

    batch_tokens: int
    chunk_pairs: int


class StopRequested(Exception):
    """Somebody asked to stop between two rows; the pairs at hand have no scores."""


def never() -> bool:
    return False


@dataclass(slots=True)
class Work:
    """What the device was given: rows, real tokens, tokens computed (padding included), and what had to be mended."""

    rows: int = 0
    tokens: int = 0
    computed: int = 0
    out_of_memory: int = 0
    rescued: int = 0


class RowNotes(Protocol):
    """What is known of rows before they are scored, and who wants to know of them after.

    A row is told by the distinct pairs in it, int64 [m]; its scores are float32 [m], or [m, layers].
    """

    def known(self, pairs: Index) -> npt.NDArray[np.float32] | None: ...

    def done(self, pairs: Index, scores: npt.NDArray[np.float32]) -> None: ...


class Model(Protocol):
    """A model that is open, here or in other processes."""

    @property
    def facts(self) -> ModelFacts: ...

    @property
    def sizes(self) -> Sizes: ...

    @property
    def work(self) -> Work: ...

    def score_plainly(self, pairs: PairTexts) -> npt.NDArray[np.float32]:
        """Logits of n pairs, float32 [n] or [n, layers], as the stock model gives them in fp32, nothing packed."""
        ...


class Session(Model, Protocol):
    """A model that is open here. `prepare` may run on another thread than `score`."""

    def prepare(self, pairs: PairTexts) -> Prepared:
        """Tokenize and plan n pairs."""
        ...

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits of the pairs' passages, float32 [k], in their order; NaN where there is no finite one.

        Where no document is read in passages k is n, the number of pairs; `prepared.windows` makes them one a pair.
        Where the model scores from several layers, [k, layers], the deepest last. Rows that `notes` knows are taken
        from it.
        Raises StopRequested when `should_stop` says so between two rows.
        """
        ...
