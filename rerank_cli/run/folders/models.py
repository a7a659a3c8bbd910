"""The models of a process that does many files: each is opened once, and is the same in all processes of the job."""

from __future__ import annotations

from rerank_cli.engine.contract import ModelFacts, Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import RefusedError
from rerank_cli.run.folders.figures import FolderStatistics
from rerank_cli.run.folders.state import FolderState
from rerank_cli.run.opening import OpenModel
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.fingerprint import differences, fingerprint
from rerank_cli.run.scoring.workers.pool import Workers


class AnotherModelError(RefusedError):
    """The model differs from that of the other processes: this process cannot go on."""


class SharedModels:
    """Opens models for the runs of files, and keeps them. A context manager that ends their workers."""

    def __init__(self, open_model: OpenModel, config: RunConfig, state: FolderState, stats: FolderStatistics) -> None:
        self._open_model, self._config, self._state, self._stats = open_model, config, state, stats
        self._open: dict[ModelOptions, Session | Workers] = {}

    def __call__(self, options: ModelOptions) -> Session | Workers:
        """The open model. Raises AnotherModelError, and what opening it raises."""
        if options not in self._open:
            model = self._open[options] = self._open_model(options)
            if options == self._config.model:
                self._stats.model = model.facts
                self._agree(model.facts)
        return self._open[options]

    def _agree(self, facts: ModelFacts) -> None:
        mark = fingerprint(self._config, facts, 0)
        own = {name: mark[name] for name in ("model revision", "dtype", "max length", "query max length")}
        manifest = self._state.manifest()
        agreed = (manifest or {}).get("model") or self._state.agree(own)
        if found := differences(agreed, own):
            what = f"made with another model or device ({'; '.join(found)})"
            fix = "--dtype and --max-length as there, or --overwrite"
            raise AnotherModelError(f"{self._config.output.path}: {what}. Fix: {fix}")

    def after_failure(self) -> None:
        """Close workers, which may still be computing for the run that failed; they are opened anew when needed."""
        for options, model in list(self._open.items()):
            if isinstance(model, Workers):
                model.close()
                del self._open[options]

    def __enter__(self) -> SharedModels:
        return self

    def __exit__(self, *_: object) -> None:
        for model in self._open.values():
            if isinstance(model, Workers):
                model.close()
