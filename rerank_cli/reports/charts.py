"""Figures to geometry: where each mark of a chart stands, in units of its view box, and what it says when pointed at.

The origin is the upper left corner of the plot, without its axes. Knows nothing of colours or of HTML.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerank_cli.reports.counts import WIDTH, RankTable, logit_of

_BINS = 60
_CELLS = 25
_MARKS = 300
_GRID = 20
_STEEP = 500.0
_PROBABILITIES = (1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle. `weight`, from 0 to 1, is its strength where that means something, `kind` what it stands for."""

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
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()


def score_chart(
    counts: Mapping[int, int], probabilities: bool, width: float, height: float, span: tuple[int, int] | None = None
) -> Chart:
    """A histogram over steps of the logit; `span` is the range of steps of another chart that it stands below."""
    low, high = span or (min(counts), max(counts))
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
        bars.append(Bar(_round(place * wide), _round(height - tall), _round(max(0.6, wide - 0.8)), _round(tall), tip))

    def at(logit: float) -> float:
        return (logit / WIDTH - low) / (number * merged) * width

    if probabilities:
        spots = [(at(logit_of(p)), f"{p:g}") for p in _PROBABILITIES]
    else:
        spots = [(at(value), f"{value:g}") for value in nice_steps(low * WIDTH, (high + 1) * WIDTH, 8)]
    x_ticks = tuple(Tick(_round(x), label) for x, label in spots if 0 <= x <= width)
    return Chart(width, height, tuple(bars), x_ticks=x_ticks, y_ticks=_counts_axis(most, height))


def score_label(logit: float, probabilities: bool) -> str:
    """A place on the scale of logits, as the score that is written there."""
    return f"{1 / (1 + math.exp(-max(-_STEEP, min(_STEEP, logit)))):.4g}" if probabilities else f"{logit:g}"


def _counts_axis(most: int, height: float) -> tuple[Tick, ...]:
    steps = [value for value in nice_steps(0, most, 4) if value == int(value)]
    return tuple(Tick(_round(height - height * value / most), f"{int(value):,}") for value in steps)


def nice_steps(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` to `high`, about so many."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def rank_chart(ranks: RankTable, size: float) -> Chart:
    """A square of cells: first-stage rank to the right, new rank downwards, first places in the upper left corner."""
    table, step = ranks.table(_CELLS)
    across = max(table.shape)
    cell = size / across
    most = max(1, int(table.max()))
    bars = [
        Bar(
            _round(first * cell),
            _round(new * cell),
            _round(cell - 0.5),
            _round(cell - 0.5),
            f"first-stage rank {_ranks(first, step)} → new rank {_ranks(new, step)}: {int(count):,}",
            round(max(0.04, math.sqrt(count / most)), 3),
        )
        for first, row in enumerate(table)
        for new, count in enumerate(row)
        if count
    ]
    spots = [number for number in range(across) if number % max(1, across // 5) == 0]
    ticks = tuple(Tick(_round((number + 0.5) * cell), _ranks(number, step)) for number in spots)
    return Chart(size, size, tuple(bars), x_ticks=ticks, y_ticks=ticks)


def _ranks(cell: int, step: int) -> str:
    return str(cell + 1) if step == 1 else f"{cell * step + 1}–{(cell + 1) * step}"


def change_chart(before: Sequence[float], after: Sequence[float], width: float, height: float) -> Chart:
    """One bar a query, sorted by its change: gains above the line, losses below it. Many queries are drawn evenly."""
    changes = sorted((b - a for a, b in zip(before, after, strict=True)), reverse=True)
    drawn = changes
    if len(changes) > _MARKS:
        drawn = [changes[round(place * (len(changes) - 1) / (_MARKS - 1))] for place in range(_MARKS)]
    wide, middle = width / len(drawn), height / 2
    bars = tuple(
        Bar(
            _round(place * wide),
            _round(middle - max(0.0, change) * middle),
            _round(wide * 0.82 if wide > 3 else wide),
            _round(abs(change) * middle),
            f"{change:+.3f}",
            kind="won" if change > 0 else "lost",
        )
        for place, change in enumerate(drawn)
        if change
    )
    y_ticks = tuple(
        Tick(_round(middle - value * middle), f"{value:+.1f}" if value else "0") for value in (1, 0.5, 0, -0.5, -1)
    )
    return Chart(width, height, bars, y_ticks=y_ticks)


def before_after_chart(before: Sequence[float], after: Sequence[float], size: float) -> Chart:
    """A dot for each pair of values on a grid, its area the number of queries there."""
    places = Counter((round(a * _GRID), round(b * _GRID)) for a, b in zip(before, after, strict=True))
    most = max(places.values())
    largest = size / _GRID * 0.62
    smallest = min(3.2, largest)
    dots = tuple(
        Dot(
            _round(a / _GRID * size),
            _round(size - b / _GRID * size),
            _round(max(smallest, largest * math.sqrt(count / most))),
            f"before {a / _GRID:.2f}, after {b / _GRID:.2f}: {count:,} {'query' if count == 1 else 'queries'}",
            "won" if b > a else "lost" if b < a else "same",
        )
        for (a, b), count in sorted(places.items())
    )
    x_ticks = tuple(Tick(_round(value * size), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1))
    y_ticks = tuple(Tick(_round(size - value * size), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1))
    return Chart(size, size, dots=dots, x_ticks=x_ticks, y_ticks=y_ticks)


def share_chart(counts: Sequence[int], labels: Sequence[str], width: float, height: float) -> Chart:
    """Parts of a whole side by side."""
    total = sum(counts)
    bars, x = [], 0.0
    for number, (count, label) in enumerate(zip(counts, labels, strict=True)):
        wide = width * count / total
        if count:
            tip = f"{label}: {count:,} ({count / total:.1%})"
            bars.append(Bar(_round(x), 0, _round(max(0.5, wide - 1.5)), height, tip, kind=f"part{number}"))
        x += wide
    return Chart(width, height, tuple(bars))


def _round(value: float) -> float:
    return round(value, 2)
