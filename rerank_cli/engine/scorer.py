"""Scores prepared rows: overlapped copies, splits after out-of-memory errors, fp32 for non-finite scores."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch

from rerank_cli.engine.contract import RowNotes, StopRequested, Work, never
from rerank_cli.engine.pending import Pending, RowWorkers, fetch
from rerank_cli.engine.rows.prepare import PlannedRow, Prepared
from rerank_cli.errors import ModelError
from rerank_cli.models.families import CrossEncoder
from rerank_cli.models.packed_row import TokenRow

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Scorer:
    """Scores prepared pairs with one model; used by one thread at a time.

    `rescue` loads the same model in fp32, to compute non-finite scores again. With `workers` rows are scored in
    parallel, otherwise one after the other, and their scores are fetched one row late.
    """

    model: CrossEncoder
    rescue: Callable[[], CrossEncoder] | None = None
    workers: RowWorkers | None = None
    work: Work = field(default_factory=Work)
    _ceiling: int | None = None
    _counting: Lock = field(default_factory=Lock)

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits of all passages, see `contract.Session`."""
        layers = len(self.model.layers)
        logits = np.empty((prepared.distinct_pairs, layers) if layers > 1 else prepared.distinct_pairs, np.float32)
        running = deque[tuple[PlannedRow, Pending]]()
        ahead = 2 * self.workers.count if self.workers else 1
        try:
            for row in prepared.rows:
                known = notes.known(row.pairs) if notes else None
                if known is not None:
                    logits[row.pairs] = known
                    continue
                if should_stop():
                    raise StopRequested
                if self.workers:
                    running.append((row, self.workers.start(partial(self._run, self.model), row.row)))
                else:
                    running.append((row, fetch(self._run(self.model, row.row))))
                if len(running) > ahead:
                    _collect(logits, *running.popleft(), notes)
            while running:
                _collect(logits, *running.popleft(), notes)
        except StopRequested:
            for begun in [one for one in running if not one[1].cancel()]:
                _collect(logits, *begun, notes)
            raise
        except BaseException:
            for _, scores in running:
                scores.cancel()
            raise
        self._rescue_non_finite(prepared, logits)
        return logits[prepared.distinct]

    def _run(self, model: CrossEncoder, row: TokenRow) -> torch.Tensor:
        """Score one row; one that does not fit the device is split, and so is every later row of its size."""
        if self._ceiling is None or row.tokens <= self._ceiling or not row.divisible:
            try:
                scores = model.score(row)
            except torch.OutOfMemoryError as error:
                if not row.divisible:
                    one = "single pair" if row.passages is None else f"list of {row.sequences} passages"
                    what = f"out of memory on a {one} of {row.tokens} tokens"
                    raise ModelError(f"{what}. Fix: --max-length, or a smaller --dtype") from error
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                self.work.out_of_memory += 1
                self._ceiling = max(1, row.tokens // 2)
                log.warning("out of memory with rows of %d tokens, now %d", row.tokens, self._ceiling)
            else:
                with self._counting:
                    self.work.rows += 1
                    self.work.tokens += row.tokens
                    self.work.computed += self.model.computed(row)
                return scores
        return torch.cat([self._run(model, part) for part in row.halves()])

    def _rescue_non_finite(self, prepared: Prepared, logits: npt.NDArray[np.float32]) -> None:
        bad = _not_finite(logits)
        if not bad.any() or self.rescue is None:
            return
        log.warning("%d scores were not finite, computing them again in fp32", int(bad.sum()))
        exact = self.rescue()
        for row in prepared.rows:
            if bad[row.pairs].any():
                chosen = np.flatnonzero(bad[row.pairs]) if row.row.passages is None else np.arange(len(row.pairs))
                part = row.row.take(chosen) if row.row.passages is None else row.row
                logits[row.pairs[chosen]] = self._run(exact, part).cpu().numpy()
        self.work.rescued += int((bad & ~_not_finite(logits)).sum())


def _not_finite(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether each pair, [m], has a score that is not finite, from any layer."""
    finite = np.isfinite(logits)
    return ~finite if finite.ndim == 1 else ~np.logical_and.reduce(finite, axis=1)


def _collect(logits: npt.NDArray[np.float32], row: PlannedRow, scores: Pending, notes: RowNotes | None) -> None:
    logits[row.pairs] = scores.wait()
    if notes:
        notes.done(row.pairs, logits[row.pairs])
