"""Experiment trackers (TensorBoard, W&B, MLflow and others) by accelerate, beside the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_cli.errors import UsageError


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError for a name that is not known or whose package is not installed."""
    if not names:
        return
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    except ImportError as error:
        raise UsageError("--report-to needs accelerate. Fix: pip install 'rerank-cli[trackers]'") from error
    there = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UsageError(f"--report-to {name}: not known (expected {', '.join(LOGGER_TYPE_TO_CLASS)})")
        if name not in there:
            raise UsageError(f"--report-to {name}: its package is not installed. Fix: pip install {name}")


class Trackers:
    """Sends the figures of steps and evaluations to trackers that accelerate knows, by their names there.

    `folder` is where a tracker with files writes them.
    """

    def __init__(self, names: Sequence[str], run: str, folder: str, settings: Mapping[str, Any]) -> None:
        self._trackers: list[Any] = []
        if not names:
            return
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()
        simple = int | float | str | bool
        plain = {key: value if isinstance(value, simple) else str(value) for key, value in settings.items()}
        for name in names:
            kind = LOGGER_TYPE_TO_CLASS[name]
            tracker = kind(run, folder) if kind.requires_logging_directory else kind(run)
            tracker.start()
            tracker.store_init_configuration(plain)
            self._trackers.append(tracker)

    def write(self, line: Mapping[str, Any]) -> None:
        """The numbers of a line of the log."""
        if not self._trackers:
            return
        if line.get("event") == "evaluation":
            values = {f"eval/{name}": value for name, value in line["measures"].items()}
        else:
            values = {f"train/{name}": value for name, value in line.items() if name != "step"}
        for tracker in self._trackers:
            tracker.log(values, step=line["step"])

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()
