"""What spares a run work: scores of earlier runs, put around whatever scoring there is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rerank_cli.engine.contract import ModelFacts
from rerank_cli.jobs.cache import CacheUse, ScoreCache, cached
from rerank_cli.jobs.cache_file import CacheFile
from rerank_cli.jobs.fingerprint import Fingerprint
from rerank_cli.jobs.pipeline import MakeScoring
from rerank_cli.jobs.scoring import Scoring
from rerank_cli.jobs.tally import Tally

if TYPE_CHECKING:
    from rerank_cli.jobs.options import RunConfig


class Shortcuts:
    """Those that a run was asked for; what is open is left to the stack."""

    def __init__(self, config: RunConfig, tally: Tally, stack: ExitStack) -> None:
        """RefusedError where the cache is something else, before a model is loaded."""
        self._config = config
        self._tally = tally
        self._caches: list[ScoreCache] = []
        self._file = CacheFile(config.cache, config.notify) if config.cache else None
        if self._file:
            stack.callback(self._file.close)

    def around(self, make: MakeScoring, facts: ModelFacts, mark: Fingerprint) -> MakeScoring:
        """The scoring that `make` makes of the model with these facts, spared what can be."""

        def scoring(should_stop: Callable[[], bool]) -> Scoring:
            return self._cached(make(should_stop), facts, mark, self._tally)

        return scoring

    def _cached(self, scoring: Scoring, facts: ModelFacts, mark: Fingerprint, tally: Tally) -> Scoring:
        if self._file is None:
            return scoring
        passages = self._config.model.cutting.in_passages
        cache = ScoreCache(self._file, mark, max(1, len(facts.layers)), passages=passages)
        self._caches.append(cache)
        return cached(scoring, cache, tally)

    @property
    def cache_use(self) -> CacheUse | None:
        """What the cache was good for, once it is closed."""
        if self._file is None:
            return None
        hits, misses = sum(cache.hits for cache in self._caches), sum(cache.misses for cache in self._caches)
        return CacheUse(hits, misses, self._file.path, self._file.entries)
