"""What spares a run work, put around whatever scoring there is: scores of earlier runs, a small model before the large.

The cache stands around each model by itself, the cascade around both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from threading import Lock

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.contract import ModelFacts, RowNotes, Session, never
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.prepare import PairTexts, Prepared
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.fingerprint import Fingerprint, cascade_settings, fingerprint
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.cache import CacheUse, ScoreCache, cached
from rerank_cli.run.scoring.cache_file import CacheFile
from rerank_cli.run.scoring.cascade import cascaded
from rerank_cli.run.scoring.cascade_quality import Agreement, CascadeUse
from rerank_cli.run.scoring.local import MakeScoring, Scoring, in_this_process
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.statistics import RunStatistics

_TURN = "wait for its turn"


class ScoringWrappers:
    """Those that a run was asked for; what is open is left to the stack. `settings` are fingerprint of the small model.

    The small model runs on the devices of the large one, and keeps no journal: it is soon done again.
    """

    def __init__(self, config: RunConfig, stats: RunStatistics, stack: ExitStack) -> None:
        """RefusedError where the cache is something else."""
        self._config = config
        self._tally = stats
        self._turn = Lock()
        self._stack = stack
        self._small: Session | Workers | None = None
        self._small_tally = RunStatistics()
        self._agreement = Agreement(config.cascade.sample, config.cascade.keep) if config.cascade else None
        self._caches: list[ScoreCache] = []
        self._file = CacheFile(config.cache, config.notify) if config.cache else None
        if self._file:
            stack.callback(self._file.close)

    def load(self, open_model: Callable[[ModelOptions], Session | Workers]) -> None:
        """Open the small model, if there is one."""
        cascade = self._config.cascade
        if cascade is None:
            return
        with self._tally.timing("load"):
            small = self._small = open_model(cascade.model)
        if isinstance(small, Workers):
            self._stack.enter_context(small)
        facts = small.facts
        self._config.notify(f"{facts.name} on {facts.device} in {facts.dtype} keeps the best {cascade.keep} for it")

    @property
    def settings(self) -> Fingerprint:
        return cascade_settings(self._small.facts) if self._small else {}

    @property
    def revisions(self) -> list[str]:
        return [self._small.facts.revision] if self._small else []

    def plain(self, model: Session | Workers, journal: Journal, stats: RunStatistics) -> MakeScoring:
        """The scoring by a model as it is; one in this process leaves the device to the small model in its turn."""
        if isinstance(model, Workers):
            return partial(model.scoring, journal, stats)
        shared = InTurn(model, self._turn, stats) if self._config.cascade else model
        return partial(in_this_process, shared, journal, stats)

    def around(self, make: MakeScoring, facts: ModelFacts, mark: Fingerprint, slice_pairs: int) -> MakeScoring:
        """The scoring that `make` makes of the model with these facts, spared what can be."""
        passages = self._config.model.in_passages

        def scoring(should_stop: Callable[[], bool]) -> Scoring:
            large = self._cached(make(should_stop), facts, mark, self._tally, passages=passages)
            if self._small is None or self._agreement is None or self._config.cascade is None:
                return large
            small = self._small_scoring(self._small, should_stop, slice_pairs)
            return cascaded(small, large, self._config.cascade.keep, slice_pairs, self._agreement)

        return scoring

    def _small_scoring(self, small: Session | Workers, should_stop: Callable[[], bool], slice_pairs: int) -> Scoring:
        stats, options = self._small_tally, self._config.models[-1]
        mark = fingerprint(replace(self._config, model=options, cascade=None), small.facts, slice_pairs)
        scoring = self.plain(small, Journal(None, mark, lambda: 0), stats)(should_stop)
        return self._cached(scoring, small.facts, mark, stats, passages=False)

    def _cached(
        self, scoring: Scoring, facts: ModelFacts, mark: Fingerprint, stats: RunStatistics, *, passages: bool
    ) -> Scoring:
        if self._file is None:
            return scoring
        cache = ScoreCache(self._file, mark, max(1, len(facts.layers)), passages=passages)
        self._caches.append(cache)
        return cached(scoring, cache, stats)

    @property
    def cache_use(self) -> CacheUse | None:
        """What the cache was good for, once it is closed; both models' scores count."""
        if self._file is None:
            return None
        hits, misses = sum(cache.hits for cache in self._caches), sum(cache.misses for cache in self._caches)
        return CacheUse(hits, misses, self._file.path, self._file.entries)

    @property
    def cascade_use(self) -> CascadeUse | None:
        if self._small is None or self._agreement is None:
            return None
        facts, spent = self._small.facts, self._small_tally.seconds
        return self._agreement.use(facts.name, facts.revision, spent.get("score", 0.0) - spent.get(_TURN, 0.0))


class InTurn:
    """A session that shares its device with others: one of them scores at a time. Waiting counts as scoring too."""

    def __init__(self, session: Session, turn: Lock, stats: RunStatistics) -> None:
        self._session = session
        self._turn = turn
        self._tally = stats
        self.facts, self.sizes, self.work = session.facts, session.sizes, session.work
        self.prepare = session.prepare

    def score_plainly(self, pairs: PairTexts) -> npt.NDArray[np.float32]:
        return self._session.score_plainly(pairs)

    def score(
        self, prepared: Prepared, should_stop: Callable[[], bool] = never, notes: RowNotes | None = None
    ) -> npt.NDArray[np.float32]:
        with self._tally.timing(_TURN):
            self._turn.acquire()
        try:
            return self._session.score(prepared, should_stop, notes)
        finally:
            self._turn.release()
