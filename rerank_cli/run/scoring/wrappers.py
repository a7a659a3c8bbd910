"""The score cache around each model of a run, and the cascade around both models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from threading import Lock

from rerank_cli.engine.contract import ModelFacts, Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.fingerprint import Fingerprint, cascade_settings, fingerprint
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.cache import CacheUse, ScoreCache, cached
from rerank_cli.run.scoring.cache_file import CacheFile
from rerank_cli.run.scoring.cascade import cascaded
from rerank_cli.run.scoring.cascade_quality import Agreement, CascadeUse
from rerank_cli.run.scoring.local import MakeScoring, in_this_process
from rerank_cli.run.scoring.workers.pool import Workers

_WAIT = "wait for its turn"


class ScoringWrappers:
    """The cache and the cascade that `config` asks for; the stack closes what they open.

    The small model runs on the devices of the large one. It has no journal, because its scores are cheap to repeat.
    """

    def __init__(self, config: RunConfig, stats: RunStatistics, stack: ExitStack) -> None:
        """Raises RefusedError if the cache file is another kind of file."""
        self._config, self._stats, self._stack = config, stats, stack
        self._device = Lock()
        self._small: Session | Workers | None = None
        self._small_stats = RunStatistics(by_rows=False)
        self._agreement = Agreement(config.cascade.sample, config.cascade.keep) if config.cascade else None
        self._caches: list[ScoreCache] = []
        self._file = stack.enter_context(closing(CacheFile(config.cache, config.notify))) if config.cache else None

    def load(
        self, open_model: Callable[[ModelOptions], Session | Workers], large: ModelFacts, *, shared: bool = False
    ) -> None:
        """Open the small model, if there is a cascade. Raises what `open_model` raises, with the flag's name, and
        UsageError if one of the models scores whole lists.

        A model that is `shared` with other runs is left open.
        """
        if self._config.cascade is None:
            return
        _refuse_lists(large)
        with self._stats.timing("load"):
            try:
                small = self._small = open_model(self._config.cascade.model)
            except (ModelError, UsageError) as error:
                raise type(error)(f"--cascade: {error}") from error
        _refuse_lists(small.facts)
        if isinstance(small, Workers) and not shared:
            self._stack.enter_context(small)
        facts, keep = small.facts, self._config.cascade.keep
        self._config.notify(f"{facts.name} on {facts.device} in {facts.dtype} keeps the best {keep} candidates")

    @property
    def settings(self) -> Fingerprint:
        """The small model's part of the run's fingerprint."""
        return cascade_settings(self._small.facts) if self._small else {}

    @property
    def revisions(self) -> list[str]:
        return [self._small.facts.revision] if self._small else []

    def scoring(self, model: Session | Workers, journal: Journal, mark: Fingerprint, chunk_pairs: int) -> MakeScoring:
        """The scoring of the run by its large model, with cache and cascade; `mark` is the run's fingerprint."""
        large = self._by(model, self._config, journal, mark, self._stats)
        agreement = self._agreement
        if self._small is None or agreement is None:
            return large
        config = replace(self._config, model=self._config.models[-1], cascade=None)
        small_mark = fingerprint(config, self._small.facts, chunk_pairs)
        small = self._by(self._small, config, Journal(None, small_mark, lambda: 0), small_mark, self._small_stats)
        return lambda should_stop: cascaded(small(should_stop), large(should_stop), chunk_pairs, agreement)

    def _by(
        self, model: Session | Workers, config: RunConfig, journal: Journal, mark: Fingerprint, stats: RunStatistics
    ) -> MakeScoring:
        """Scoring by one model, with its cache. The two models of a cascade in this process use the device in turn."""
        if isinstance(model, Workers):
            make: MakeScoring = partial(model.scoring, journal, stats)
        else:
            exclusive = partial(self._turn, stats) if self._agreement else nullcontext
            make = partial(in_this_process, model, journal, stats, exclusive=exclusive)
        if self._file is None:
            return make
        layers, lists = max(1, len(model.facts.layers)), model.facts.listwise
        cache = ScoreCache(self._file, mark, layers, passages=config.model.in_passages, lists=lists)
        self._caches.append(cache)
        return lambda should_stop: cached(make(should_stop), cache, stats)

    @contextmanager
    def _turn(self, stats: RunStatistics) -> Iterator[None]:
        with stats.timing(_WAIT):
            self._device.acquire()
        try:
            yield
        finally:
            self._device.release()

    @property
    def cache_use(self) -> CacheUse | None:
        """Figures of the cache over both models; complete once the cache is closed."""
        if self._file is None:
            return None
        hits, misses = sum(cache.hits for cache in self._caches), sum(cache.misses for cache in self._caches)
        return CacheUse(hits, misses, self._file.path, self._file.entries)

    @property
    def cascade_use(self) -> CascadeUse | None:
        if self._small is None or self._agreement is None:
            return None
        facts, spent = self._small.facts, self._small_stats.seconds
        return self._agreement.use(facts.name, facts.revision, spent.get("score", 0.0) - spent.get(_WAIT, 0.0))


def _refuse_lists(facts: ModelFacts) -> None:
    """Raise UsageError for a listwise model: its scores of a part of the candidates are not those of all of them."""
    if facts.listwise:
        what = f"--cascade: {facts.name} scores whole lists, and its scores change when candidates are left out"
        raise UsageError(f"{what}. Fix: remove --cascade")
