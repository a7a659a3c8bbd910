"""Figures of a run in Prometheus' text format, in a file that is replaced as a whole, for the textfile collector.

The format is described at https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rerank_cli.errors import OutputError, UsageError
from rerank_cli.run.figures.progress import Figures, snapshot, ticking
from rerank_cli.storage.files import replace_file
from rerank_cli.storage.paths import final_path

STATES = ("loading", "running", "finished", "rejected", "stopped", "failed")
_COUNTERS = {
    "records": "Records written, those of earlier runs that this one continues included.",
    "pairs": "Pairs of query and passage scored.",
    "tokens": "Tokens scored.",
    "rejected": "Bad records.",
    "truncated_pairs": "Pairs longer than the maximum length.",
}
_GAUGES = {
    "pairs_per_second": "Pairs scored per second, without the time to load the model.",
    "tokens_per_second": "Tokens scored per second, without the time to load the model.",
    "share_done": "Share of the input that is done, 0 to 1; absent if its size is not known.",
    "eta_seconds": "Estimated seconds until the end; absent if not known.",
    "elapsed_seconds": "Seconds since the run started.",
}


def check_metrics() -> None:
    """Raise UsageError if the library that writes the format is missing."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise UsageError("--metrics needs prometheus-client. Fix: pip install 'rerank-cli[metrics]'") from error


class MetricsFile:
    """The file `path` with the figures of a run, labelled with the name of its `output`.

    A write that fails does not end the run; `notify` is told once.
    """

    def __init__(self, path: str, output: str, stats: Figures, notify: Callable[[str], None]) -> None:
        self._path = final_path(path)
        self._output = output
        self._stats = stats
        self._notify = notify
        self._told = False

    @contextmanager
    def kept(self, interval: float) -> Iterator[None]:
        """Rewrite the file now and every `interval` seconds until the block is left; then `end` is to be called."""
        self._write(self._state())
        with ticking(lambda: self._write(self._state()), interval):
            yield

    def end(self, reason: str) -> None:
        """Write the last figures, with the exit reason of the summary; why a run stopped is not told apart."""
        self._write(reason if reason in STATES else "stopped")

    def _state(self) -> str:
        return "loading" if self._stats.scoring_since is None else "running"

    def _write(self, state: str) -> None:
        try:
            replace_file(self._path, exposition(snapshot(self._stats), self._output, state))
        except OutputError as error:
            if not self._told:
                self._told = True
                self._notify(f"{error}; the run goes on without --metrics")


def exposition(figures: dict[str, Any], output: str, state: str) -> bytes:
    """The text format of `figures`, a snapshot of the progress."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

    labels = {"output": output}

    class Collected:
        def collect(self) -> Iterator[Metric]:
            for name, meaning in _COUNTERS.items():
                counter = CounterMetricFamily(f"rerank_{name}", meaning, labels=list(labels))
                counter.add_metric(list(labels.values()), figures[name])
                yield counter
            for name, meaning in _GAUGES.items():
                if figures[name] is not None:
                    yield gauge(f"rerank_{name}", meaning, figures[name])
            yield gauge("rerank_update_timestamp_seconds", "Unix time of these figures.", round(time.time(), 3))
            states = GaugeMetricFamily("rerank_state", "1 for the state of the run.", labels=[*labels, "state"])
            for known in STATES:
                states.add_metric([*labels.values(), known], float(known == state))
            yield states

    def gauge(name: str, meaning: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, meaning, labels=list(labels))
        family.add_metric(list(labels.values()), value)
        return family

    registry = CollectorRegistry()
    registry.register(Collected())
    return generate_latest(registry)
