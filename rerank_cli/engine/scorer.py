"""Prepared rows to scores on a device: overlapped copies, out-of-memory back-off, rescue of non-finite scores.

The engine knows nothing of files, records or terminals. It is used by one thread at a time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch

from rerank_cli.engine.contract import RowNotes, StopRequested, Work, never
from rerank_cli.engine.pending import HostCopy, Pending, RowWorkers, fetch
from rerank_cli.engine.prepare import PlannedRow, Prepared
from rerank_cli.errors import ModelError
from rerank_cli.models.families import CrossEncoder
from rerank_cli.models.packed_row import TokenRow

log = logging.getLogger(__name__)


class Scorer:
    """Scores prepared pairs with one model.

    `rescue`, if given, loads the same model in fp32: scores that come out non-finite are computed again with it. With
    `workers` rows run side by side, without they run one after the other, and scores are fetched one row late.
    """

    def __init__(
        self, model: CrossEncoder, rescue: Callable[[], CrossEncoder] | None = None, workers: RowWorkers | None = None
    ) -> None:
        self._model = model
        self._rescue = rescue
        self._workers = workers
        self._ceiling: int | None = None
        self._counting = Lock()
        self.work = Work()

    @property
    def model(self) -> CrossEncoder:
        return self._model

    def of(self, model: CrossEncoder) -> Scorer:
        """The same for another model, in the same workers, counted by itself."""
        return Scorer(model, workers=self._workers)

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits of all passages, float32 [k] or [k, layers], in order; NaN where even fp32 gives no finite number.

        Rows that `notes` knows are not scored again. Raises StopRequested when `should_stop` says so between rows,
        ModelError when one pair alone does not fit.
        """
        layers = len(self._model.layers)
        logits = np.empty((prepared.distinct_pairs, layers) if layers > 1 else prepared.distinct_pairs, np.float32)
        under_way = deque[tuple[PlannedRow, HostCopy | Pending]]()
        ahead = 2 * self._workers.count if self._workers else 1
        try:
            for row in prepared.rows:
                known = notes.known(row.pairs) if notes else None
                if known is not None:
                    logits[row.pairs] = known
                    continue
                if should_stop():
                    raise StopRequested
                under_way.append((row, self._start(row.row)))
                if len(under_way) > ahead:
                    _collect(logits, *under_way.popleft(), notes)
            while under_way:
                _collect(logits, *under_way.popleft(), notes)
        except StopRequested:
            for begun in [pair for pair in under_way if not pair[1].withdraw()]:
                _collect(logits, *begun, notes)
            raise
        except BaseException:
            for _, scores in under_way:
                scores.withdraw()
            raise
        self._mend(prepared, logits)
        return logits[prepared.distinct]

    def _start(self, row: TokenRow) -> HostCopy | Pending:
        if self._workers:
            return self._workers.start(partial(self._run, self._model), row)
        return fetch(self._run(self._model, row))

    def _run(self, model: CrossEncoder, row: TokenRow) -> torch.Tensor:
        """Score one row, in parts where the device has shown that it cannot take it whole."""
        if self._ceiling is not None and row.tokens > self._ceiling and row.sequences > 1:
            return torch.cat([self._run(model, part) for part in row.halves()])
        try:
            scores = model.score(row)
        except torch.OutOfMemoryError:
            self._give_way(row)
        else:
            self._count(row)
            return scores
        return torch.cat([self._run(model, part) for part in row.halves()])

    def _give_way(self, row: TokenRow) -> None:
        if row.sequences == 1:
            raise ModelError(
                f"out of memory on a single pair of {row.tokens} tokens. Fix: --max-length, or a smaller --dtype"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.work.out_of_memory += 1
        self._ceiling = max(1, row.tokens // 2)
        log.warning("out of memory at %d tokens a row, going on with %d", row.tokens, self._ceiling)

    def _count(self, row: TokenRow) -> None:
        with self._counting:
            self.work.rows += 1
            self.work.tokens += row.tokens
            self.work.computed += self._model.computed(row)

    def _mend(self, prepared: Prepared, logits: npt.NDArray[np.float32]) -> None:
        bad = _not_finite(logits)
        if not bad.any() or self._rescue is None:
            return
        log.warning("%d scores were not finite, computing them again in fp32", int(bad.sum()))
        exact = self._rescue()
        for row in prepared.rows:
            if bad[row.pairs].any():
                chosen = np.flatnonzero(bad[row.pairs])
                logits[row.pairs[chosen]] = self._run(exact, row.row.take(chosen)).cpu().numpy()
        self.work.rescued += int((bad & ~_not_finite(logits)).sum())


def _not_finite(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which pairs, [m], have a score that is no finite number, from any layer."""
    finite = np.isfinite(logits)
    return ~finite if finite.ndim == 1 else ~np.logical_and.reduce(finite, axis=1)


def _collect(
    logits: npt.NDArray[np.float32], row: PlannedRow, scores: HostCopy | Pending, notes: RowNotes | None
) -> None:
    """Put a row's scores in their place, and tell of them."""
    logits[row.pairs] = scores.wait()
    if notes:
        notes.done(row.pairs, logits[row.pairs])
