"""Figures to geometry: the position of each mark of a chart in units of its view box, and its tooltip.

The origin is the upper left corner of the plot, without its axes. Independent of colours and HTML.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rerank_cli.reports.counts import WIDTH, RankTable, logit_of

_BINS = 60
_CELLS = 25
_MARKS = 300
_GRID = 20
_STEEP = 500.0
_PROBABILITIES = (1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


Ticks = tuple[tuple[float, str], ...]  # positions on an axis with their labels


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle. `weight` is its opacity from 0 to 1, `kind` its meaning."""

    x: float
    y: float
    width: float
    height: float
    tip: str
    weight: float = 1.0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    radius: float
    tip: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chart:
    width: float
    height: float
    bars: tuple[Bar, ...] = ()
    dots: tuple[Dot, ...] = ()
    x_ticks: Ticks = ()
    y_ticks: Ticks = ()


def score_chart(counts: Counter[int], probabilities: bool, width: float, height: float, span: tuple[int, int]) -> Chart:
    """A histogram over steps of the logit from `span[0]` to `span[1]`."""
    low, high = span
    merged = max(1, math.ceil((high - low + 1) / _BINS))
    bins: Counter[int] = Counter()
    for step, count in counts.items():
        bins[(step - low) // merged] += count
    number = (high - low) // merged + 1
    most = max(bins.values())
    wide = width / number
    bars = []
    for place in sorted(bins):
        begin = (low + place * merged) * WIDTH
        tall = height * bins[place] / most
        edges = [score_label(begin + offset, probabilities) for offset in (0.0, merged * WIDTH)]
        tip = f"{edges[0]} to {edges[1]}: {bins[place]:,}"
        bars.append(Bar(place * wide, height - tall, max(0.6, wide - 0.8), tall, tip))
    if probabilities:
        marks = [(logit_of(p), f"{p:g}") for p in _PROBABILITIES]
    else:
        marks = [(value, f"{value:g}") for value in nice_steps(low * WIDTH, (high + 1) * WIDTH, 8)]
    spots = [((logit / WIDTH - low) / (number * merged) * width, label) for logit, label in marks]
    x_ticks = tuple((x, label) for x, label in spots if 0 <= x <= width)
    steps = [value for value in nice_steps(0, most, 4) if value == int(value)]
    y_ticks = tuple((height - height * value / most, f"{int(value):,}") for value in steps)
    return Chart(width, height, tuple(bars), x_ticks=x_ticks, y_ticks=y_ticks)


def score_label(logit: float, probabilities: bool) -> str:
    """A position on the logit scale as a score."""
    return f"{1 / (1 + math.exp(-max(-_STEEP, min(_STEEP, logit)))):.4g}" if probabilities else f"{logit:g}"


def nice_steps(low: float, high: float, about: int) -> list[float]:
    """About `about` round numbers from `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def rank_chart(ranks: RankTable, size: float) -> Chart:
    """A square of cells: first-stage rank to the right, new rank downwards, rank 1 in the upper left corner."""
    table, step = ranks.table(_CELLS)
    across = max(table.shape)
    cell = size / across
    most = max(1, int(table.max()))
    names = [str(n + 1) if step == 1 else f"{n * step + 1}–{(n + 1) * step}" for n in range(across)]
    bars = []
    for first, row in enumerate(table.tolist()):
        for new, count in enumerate(row):
            if count:
                tip = f"first-stage rank {names[first]} → new rank {names[new]}: {count:,}"
                weight = round(max(0.04, math.sqrt(count / most)), 3)
                bars.append(Bar(first * cell, new * cell, cell - 0.5, cell - 0.5, tip, weight))
    ticks = tuple(((number + 0.5) * cell, names[number]) for number in range(0, across, max(1, across // 5)))
    return Chart(size, size, tuple(bars), x_ticks=ticks, y_ticks=ticks)


def change_chart(before: Sequence[float], after: Sequence[float], width: float, height: float) -> Chart:
    """One bar per query, sorted by change: gains above the line, losses below it. Of many queries, an even sample."""
    changes = sorted((b - a for a, b in zip(before, after, strict=True)), reverse=True)
    drawn = changes
    if len(changes) > _MARKS:
        drawn = [changes[round(place * (len(changes) - 1) / (_MARKS - 1))] for place in range(_MARKS)]
    wide, middle = width / len(drawn), height / 2
    bars = []
    for place, change in enumerate(drawn):
        if change:
            top, thick = middle - max(0.0, change) * middle, wide * 0.82 if wide > 3 else wide
            kind = "won" if change > 0 else "lost"
            bars.append(Bar(place * wide, top, thick, abs(change) * middle, f"{change:+.3f}", kind=kind))
    levels = (1, 0.5, 0, -0.5, -1)
    y_ticks = tuple((middle - value * middle, f"{value:+.1f}" if value else "0") for value in levels)
    return Chart(width, height, tuple(bars), y_ticks=y_ticks)


def before_after_chart(before: Sequence[float], after: Sequence[float], size: float) -> Chart:
    """A dot per pair of values on a grid; its area is the number of queries."""
    places = Counter((round(a * _GRID), round(b * _GRID)) for a, b in zip(before, after, strict=True))
    most = max(places.values())
    largest = size / _GRID * 0.62
    smallest = min(3.2, largest)
    dots = []
    for (a, b), count in sorted(places.items()):
        radius = max(smallest, largest * math.sqrt(count / most))
        tip = f"before {a / _GRID:.2f}, after {b / _GRID:.2f}: {count:,} {'query' if count == 1 else 'queries'}"
        kind = "won" if b > a else "lost" if b < a else "same"
        dots.append(Dot(a / _GRID * size, size - b / _GRID * size, radius, tip, kind))
    quarters = (0, 0.25, 0.5, 0.75, 1)
    x_ticks = tuple((value * size, f"{value:g}") for value in quarters)
    y_ticks = tuple((size - value * size, f"{value:g}") for value in quarters)
    return Chart(size, size, dots=tuple(dots), x_ticks=x_ticks, y_ticks=y_ticks)


def share_chart(counts: Sequence[int], labels: Sequence[str], width: float, height: float) -> Chart:
    """Parts of a whole in one row."""
    total = sum(counts)
    bars, x = [], 0.0
    for number, (count, label) in enumerate(zip(counts, labels, strict=True)):
        wide = width * count / total
        if count:
            tip = f"{label}: {count:,} ({count / total:.1%})"
            bars.append(Bar(x, 0, max(0.5, wide - 1.5), height, tip, kind=f"part{number}"))
        x += wide
    return Chart(width, height, tuple(bars))
