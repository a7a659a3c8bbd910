"""Types shared by the engine and its callers. Without torch, so that bad flags are reported before it is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import Quantize
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import PairTexts, Prepared


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model as a run's summary describes it. `layers` are the cutoff layers, each of which gives a score.

    `scores` is the kind that is written without `--scores`: sigmoid, or raw if the checkpoint states so. `by_files` are
    the settings that its files state, other than the length; `remarks` are lines about such settings, for people. A
    `listwise` model scores all passages of a list together, and `max_length` is then that of one passage.
    """

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
    scores: str = "sigmoid"
    by_files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    listwise: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Defaults by device: tokens in a packed row, pairs in a chunk."""

    batch_tokens: int
    chunk_pairs: int


class StopRequested(Exception):
    """Scoring was stopped between two rows on request; the current pairs have no complete scores."""


def never() -> bool:
    return False


@dataclass(slots=True)
class Work:
    """Counters: rows, real tokens, computed tokens (with padding), out-of-memory splits, scores computed in fp32."""

    rows: int = 0
    tokens: int = 0
    computed: int = 0
    out_of_memory: int = 0
    rescued: int = 0

    def since(self, before: Work) -> Work:
        """The work after an earlier state of the counters."""
        names = (field.name for field in fields(Work))
        return Work(**{name: getattr(self, name) - getattr(before, name) for name in names})

    def restore(self, before: Work) -> None:
        """Set the counters back to an earlier state, so that rows scored since do not count."""
        for field in fields(Work):
            setattr(self, field.name, getattr(before, field.name))


class RowNotes(Protocol):
    """Known and new scores, float32 [m] or [m, layers], of rows, which are identified by their distinct pairs [m]."""

    def known(self, pairs: Index) -> npt.NDArray[np.float32] | None: ...
    def done(self, pairs: Index, scores: npt.NDArray[np.float32]) -> None: ...


class Model(Protocol):
    """An open model, in this process or in others."""

    @property
    def facts(self) -> ModelFacts: ...
    @property
    def sizes(self) -> Sizes: ...
    @property
    def work(self) -> Work: ...

    def score_plainly(self, pairs: PairTexts) -> npt.NDArray[np.float32]:
        """Logits of n pairs, float32 [n] or [n, layers], from the stock model in fp32 with padded batches."""
        ...


class Session(Model, Protocol):
    """An open model in this process. `prepare` may run on another thread than `score`."""

    def prepare(self, pairs: PairTexts) -> Prepared:
        """Tokenize n pairs and plan their rows."""
        ...

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits of the k passages in order, float32 [k], or [k, layers], deepest last; NaN if not finite in fp32.

        `prepared.windows` maps passages to pairs. Rows that `notes` knows are not scored again. Raises StopRequested
        when `should_stop` returns True between two rows, ModelError when a single pair does not fit the device.
        """
        ...
