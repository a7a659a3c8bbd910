"""The report of a training run: curves of loss, rate and quality, as an HTML page or in the terminal.

It is made from the files that the run writes, so it can be made while the run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from rerank_cli import __version__
from rerank_cli.choices import OutputFormat
from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats import AnswerOptions, OutputOptions, refuse_existing
from rerank_cli.formats.writing.containers import check_kind
from rerank_cli.formats.writing.sinks import check_path
from rerank_cli.reports.charts import Ticks, nice_steps
from rerank_cli.reports.page import settings_of, style_hash
from rerank_cli.reports.terminal import sparkline
from rerank_cli.storage.lock import holder
from rerank_cli.storage.outputs import write_whole
from rerank_cli.storage.paths import final_path, partial_path
from rerank_cli.storage.remote import is_remote

MANIFEST, LOG, RUNNING_LOG = "rerank_training.json", "training_log.jsonl", "log.jsonl"
_POINTS = 400
_WIDE, _HIGH = 1000.0, 220.0
_SPARK = 60


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """Lines of the log: steps, and evaluations of which the first is that before training. `manifest` once finished."""

    name: str
    steps: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The evaluation whose weights are kept: the best by the first measure."""
        name = self.measures[0] if self.measures else ""
        return max(self.evaluations[1:], key=lambda line: float(line["measures"][name]), default=None)

    @property
    def measures(self) -> list[str]:
        return list(self.evaluations[0]["measures"]) if self.evaluations else []


@dataclass(frozen=True, slots=True)
class Curve:
    """A line in a plot of `width` × `height`: its points as an SVG path takes them, and dots with tooltips."""

    width: float
    height: float
    points: str
    x_ticks: Ticks
    y_ticks: Ticks
    dots: Sequence[tuple[float, float, str]] = ()
    level: float | None = None


def is_training(output: str) -> bool:
    """Whether the output is that of a training run, finished or not."""
    if is_remote(output):
        return False
    return (Path(output) / MANIFEST).is_file() or (partial_path(output) / RUNNING_LOG).is_file()


def read_log(output: str) -> TrainingLog:
    """The log of a finished run, else of one that goes on or was stopped. Raises InputError for a damaged log."""
    folder = Path(output)
    manifest: dict[str, Any] = {}
    try:
        path = partial_path(output) / RUNNING_LOG
        if (folder / MANIFEST).is_file() and not path.exists():
            path = folder / LOG
            manifest = orjson.loads((folder / MANIFEST).read_bytes())
        whole, _, _ = path.read_bytes().rpartition(b"\n")  # the last line may be half written
        lines = [orjson.loads(line) for line in whole.splitlines()]
        steps = [line for line in lines if "loss" in line]
        evaluations = [line for line in lines if line.get("event") == "evaluation"]
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(output, 300)}: its log cannot be read ({shown(str(error), 160)})") from error
    if not steps:
        raise InputError(f"{shown(output, 300)}: no step is computed yet")
    return TrainingLog(folder.name, steps, evaluations, manifest)


def status_of(output: str) -> dict[str, Any]:
    """The state of a training run (running, stopped, complete), who runs it, and the last lines of its log."""
    final = final_path(output)
    who = holder(final.with_name(final.name + ".lock"))
    state = "running" if who else "stopped" if partial_path(output).exists() else "complete"
    found: dict[str, Any] = {"output": output, "state": state, "holder": who.process if who else None}
    try:
        log = read_log(output)
    except InputError:  # no step is computed yet
        return found
    evaluations = log.evaluations[-1:]
    return found | {"progress": log.steps[-1], "evaluation": evaluations[0] if evaluations else None}


def page(found: TrainingLog) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("rerank_cli.reports", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    style = files("rerank_cli.reports").joinpath("style.css").read_text(encoding="utf-8")
    best = found.best
    return environment.get_template("training.html").render(
        found=found,
        figures=_figures(found),
        best=best,
        loss=_smooth([(line["step"], line["loss"]) for line in found.steps]),
        rate=_curve([(line["step"], line["lr"]) for line in _thinned(found.steps)]),
        quality=[(name, _quality(found, name)) for name in found.measures],
        settings=list(settings_of(found.manifest.get("settings", {}))),
        files=list(found.manifest.get("data", {}).get("files", {}).items()),
        version=__version__,
        style=style,
        style_hash=style_hash(style),
    )


def text_of(found: TrainingLog) -> str:
    """The report for a terminal."""
    losses = [loss for _, loss in _means(found.steps, _SPARK)]
    low = min(losses)
    heights = [round(1000 * (loss - low) / ((max(losses) - low) or 1)) + 1 for loss in losses]
    text = [shown(found.name, 300), *(f"{value:>9}  {label}" for value, label, _ in _figures(found)), ""]
    text += ["loss", f"  {sparkline(heights)}  {losses[0]:.4f} → {losses[-1]:.4f}"]
    if found.evaluations:
        text += ["", "step      " + "  ".join(f"{name:>9}" for name in found.measures)]
        for line in found.evaluations:
            mark = "  best" if line is found.best else ""
            values = "  ".join(f"{line['measures'][name]:9.4f}" for name in found.measures)
            text.append(f"{line['step']:<8,}  {values}{mark}")
    return "\n".join([*text, ""])


def check_page(path: str, output: str, overwrite: bool) -> None:
    """Check that the page can be written. Raises UsageError, RefusedError or OutputError."""
    check_kind(path, "an HTML page", (".html", ".htm"))
    check_path(path, [str(Path(output) / LOG)])
    refuse_existing(OutputOptions(path, OutputFormat.API, AnswerOptions(""), overwrite=overwrite))


def write_page(path: str, found: TrainingLog) -> int:
    """Write the page; returns its size in bytes."""
    data = page(found).encode("utf-8", "replace")
    write_whole(path, data)
    return len(data)


def _figures(found: TrainingLog) -> list[tuple[str, str, str]]:
    """The large numbers at the top as (value, label, detail)."""
    steps, last = found.steps, found.steps[-1]
    seconds = sum(float(line["seconds"]) for line in steps)
    tokens = sum(int(line["tokens"]) for line in steps)
    figures = [
        (f"{last['step']:,}", "steps", f"{last['epoch']:.2f} epochs"),
        (f"{last['loss']:.4f}", "loss of the last step", f"{steps[0]['loss']:.4f} at the first"),
        (f"{tokens / max(seconds, 1e-9):,.0f}", "tokens per second", f"{seconds / 60:,.1f} minutes"),
    ]
    best = found.best
    if best:
        name = found.measures[0]
        before, difference = found.evaluations[0]["measures"][name], best["differences"][name]
        p = f", p = {difference['permutation_p']:.2g}" if difference else ""
        detail = f"{before:.4f} before{p}; step {best['step']:,}"
        figures.append((f"{best['measures'][name]:.4f}", name, detail))
    return figures


def _thinned(lines: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """At most about `_POINTS` lines, evenly spaced."""
    return lines[:: max(1, len(lines) // _POINTS)]


def _means(lines: Sequence[Mapping[str, Any]], most: int) -> list[tuple[float, float]]:
    """Step and mean loss of adjacent steps, at most about `most` of them."""
    size = -(-len(lines) // most)
    parts = [lines[begin : begin + size] for begin in range(0, len(lines), size)]
    return [(part[-1]["step"], math.fsum(line["loss"] for line in part) / len(part)) for part in parts]


def _smooth(points: Sequence[tuple[float, float]]) -> Curve:
    """The loss: means of adjacent steps if there are many."""
    return _curve(_means([{"step": step, "loss": loss} for step, loss in points], _POINTS))


def _quality(found: TrainingLog, name: str) -> Curve:
    """A measure by step, with a level line at its value before training."""
    points = [(line["step"], float(line["measures"][name])) for line in found.evaluations]
    return _curve(points, level=points[0][1], dotted=True)


def _curve(points: Sequence[tuple[float, float]], level: float | None = None, dotted: bool = False) -> Curve:
    """Points in units of the plot; the vertical axis covers their values."""
    last = max(step for step, _ in points) or 1
    low, high = min(value for _, value in points), max(value for _, value in points)
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin

    def y(value: float) -> float:
        return _HIGH * (high - value) / (high - low)

    spots = [(_WIDE * step / last, y(value)) for step, value in points]
    tips = [f"step {step:,.0f}: {value:.4f}" for step, value in points]
    x_ticks = tuple((_WIDE * step / last, f"{step:,.0f}") for step in nice_steps(0, last, 8) if step == int(step))
    y_ticks = tuple((y(value), f"{value:.4g}") for value in nice_steps(low, high, 5))
    dots = [(x, at, tip) for (x, at), tip in zip(spots, tips, strict=True)] if dotted else []
    drawn = " ".join(f"{x:.2f},{at:.2f}" for x, at in spots)
    return Curve(_WIDE, _HIGH, drawn, x_ticks, y_ticks, dots, None if level is None else y(level))
