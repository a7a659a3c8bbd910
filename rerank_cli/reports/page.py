"""Findings as one HTML page that needs nothing else: no network, no font, no script to be read.

Every text goes through the template's escaping. A content security policy allows the one style and the one script of
the page, by their hashes, and nothing besides.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from rerank_cli import __version__
from rerank_cli.choices import OutputFormat
from rerank_cli.formats import AnswerOptions, OutputOptions, check_output, refuse_existing
from rerank_cli.reports import charts
from rerank_cli.reports.analysis import EXAMPLES, MEASURES, NDCG, ORIGINS, Findings, Quality
from rerank_cli.reports.cases import TOP, Case, Measured
from rerank_cli.reports.collect import ReportOptions
from rerank_cli.reports.counts import ScoreCounts
from rerank_cli.storage.files import append_to_special, replace_file
from rerank_cli.storage.paths import final_path, is_special

_FULL = 1000.0
_SETTINGS = 300
_WIDE = 640.0
_SQUARE = 360.0
_FIRST_ORIGINS = (1, 5, 10, 50)


class Figure(NamedTuple):
    """One of the large numbers at the top."""

    value: str
    label: str
    detail: str = ""


class Line(NamedTuple):
    """A row of the table of queries."""

    case: Case
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before


def page(found: Findings) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader

    style, script = _resource("style.css"), _resource("page.js")
    environment = Environment(
        loader=PackageLoader("rerank_cli.reports", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        found=found,
        figures=figures(found),
        quality=found.quality if found.quality and found.quality.found else None,
        measures=measures(found.quality),
        ndcg=NDCG,
        won_and_lost=_won_and_lost(found.quality),
        examples=examples(found.quality),
        climbs=found.climbs.best_first(),
        lines=lines(found),
        longest=found.longest.best_first(),
        most_truncated=found.most_truncated.best_first(),
        settings=list(itertools.islice(settings(found.summary), _SETTINGS)),
        stages=_stages(found.summary),
        version=__version__,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        name=Path(found.output).name,
        **_charts(found),
    )


def _resource(name: str) -> str:
    return files("rerank_cli.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def figures(found: Findings) -> list[Figure]:
    """The headline: what there was, how fast, and what became better."""
    shown = [Figure(f"{found.queries:,}", "queries"), Figure(f"{found.pairs:,}", "pairs")]
    rate = found.summary.get("pairs_per_second")
    if isinstance(rate, int | float):
        seconds = (found.summary.get("seconds") or {}).get("total")
        took = f"{seconds:,.0f} s in all" if isinstance(seconds, int | float) else ""
        shown.append(Figure(f"{rate:,.0f}", "pairs a second", took))
    quality = found.quality
    if quality and quality.found:
        before, after = quality.mean_before(NDCG), quality.mean_after(NDCG)
        detail = "" if before is None else f"{before:.3f} before, {after - before:+.3f}"
        shown.append(Figure(f"{after:.3f}", NDCG, detail))
    share = found.top_ten_is_new
    if share is not None:
        shown.append(Figure(f"{share:.0%}", f"of the first {TOP} is new", "were further down"))
    if found.first_known:
        shown.append(
            Figure(f"{found.new_first / found.first_known:.0%}", "have another first passage", "of all queries")
        )
    if found.truncated is not None:
        shown.append(Figure(f"{found.truncated / max(1, found.pairs):.0%}", "of the pairs were truncated"))
    return shown


def measures(quality: Quality | None) -> list[tuple[str, float | None, float]]:
    """Name, mean before (None if unknown) and mean after."""
    if not quality or not quality.found:
        return []
    return [(name, quality.mean_before(name), quality.mean_after(name)) for name in MEASURES]


def _won_and_lost(quality: Quality | None) -> tuple[int, int, int] | None:
    return quality.counts if quality and quality.compared else None


def examples(quality: Quality | None) -> list[tuple[str, list[Measured]]]:
    """The queries that gained most and those that lost most."""
    if not quality:
        return []
    won = [one for one in quality.wins.best_first() if (one.change(NDCG) or 0) > 0]
    lost = quality.losses.best_first()
    return [("won", won[:EXAMPLES]), ("lost", lost[:EXAMPLES])]


def lines(found: Findings) -> list[Line]:
    """The table of queries: with judgements those that changed most, else the first of the file."""
    quality = found.quality
    if not quality:
        return [Line(case, None, None) for case in found.listed]
    changed = [*quality.wins.best_first(), *reversed(quality.losses.best_first())]
    return [Line(one.case, one.before.get(NDCG), one.after[NDCG]) for one in changed]


def _charts(found: Findings) -> dict[str, Any]:
    made: dict[str, Any] = {"scores": None, "relevant": None, "ranks": None, "origins": None, "changes": None}
    counts = found.scores.counts
    if counts:
        span = min(counts), max(counts)
        made["probabilities"] = found.scores.probabilities
        made["scores"] = _score_chart(found.scores, found.scores, span, 210.0)
        if found.relevant_scores.total:
            made["relevant"] = _score_chart(found.relevant_scores, found.scores, span, 90.0)
    if found.ranks.total:
        made["ranks"] = charts.rank_chart(found.ranks, _SQUARE)
        made["origins"] = [
            (name, charts.share_chart(found.ranks.origins(top, bounds), _origin_names(bounds), _WIDE, 24.0))
            for name, top, bounds in ((f"the first {TOP}", TOP, ORIGINS), ("the first one", 1, _FIRST_ORIGINS))
        ]
    quality = found.quality
    if quality and quality.compared:
        made["changes"] = charts.change_chart(quality.first, quality.second, _WIDE, 230.0)
        made["before_after"] = charts.before_after_chart(quality.first, quality.second, 300.0)
    return made


def _origin_names(bounds: tuple[int, ...]) -> list[str]:
    """`first-stage rank 1–10`, `11–20`, … `beyond 100`."""
    spans = [f"{low + 1}–{high}" if high > low + 1 else str(high) for low, high in itertools.pairwise((0, *bounds))]
    return [f"first-stage rank {spans[0]}", *spans[1:], f"beyond {bounds[-1]}"]


def _score_chart(drawn: ScoreCounts, all_of_them: ScoreCounts, span: tuple[int, int], height: float) -> charts.Chart:
    return charts.score_chart(drawn.steps(all_of_them.probabilities), all_of_them.probabilities, _FULL, height, span)


def settings(summary: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """A manifest flattened: dotted name and value, in its own order; seconds by stage have a chart of their own."""
    for name, value in summary.items():
        if isinstance(value, dict):
            if name != "seconds":
                yield from settings(value, f"{before}{name}.")
        elif value is not None:
            yield before + name, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _stages(summary: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Stage, seconds, and share of the longest."""
    seconds = summary.get("seconds")
    if not isinstance(seconds, dict):
        return []
    known = [(str(name), float(value)) for name, value in seconds.items() if isinstance(value, int | float)]
    longest = max((value for _, value in known), default=0.0) or 1.0
    return [(name, value, value / longest) for name, value in known]


def check_page(path: str, options: ReportOptions, overwrite: bool) -> None:
    """Raise what would keep the page from being written: UsageError, RefusedError or OutputError."""
    read = [options.output, *options.inputs, options.qrels, options.baseline, options.summary]
    output = OutputOptions(path, OutputFormat.API, AnswerOptions(""), overwrite=overwrite)
    check_output(output, [name for name in read if name])
    refuse_existing(output)


def write_page(path: str, found: Findings) -> int:
    """Write the page; its size in bytes."""
    data = page(found).encode("utf-8", "replace")
    if is_special(path):
        append_to_special(path, data)
    else:
        replace_file(final_path(path), data)
    return len(data)
