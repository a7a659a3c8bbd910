"""Renders a report as one self-contained HTML page: no network, no fonts, readable without scripts.

The template escapes every text. A content security policy allows only the page's own style and script, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from rerank_cli import __version__
from rerank_cli.choices import OutputFormat
from rerank_cli.formats import AnswerOptions, OutputOptions, refuse_existing
from rerank_cli.formats.writing.containers import check_kind
from rerank_cli.formats.writing.sinks import check_path
from rerank_cli.reports import charts
from rerank_cli.reports.analysis import EXAMPLES, MEASURES, NDCG, ORIGINS, Findings, Quality
from rerank_cli.reports.cases import TOP, MeasuredCase
from rerank_cli.reports.collect import ReportOptions
from rerank_cli.storage.outputs import write_whole

_FULL = 1000.0
_SETTINGS = 300
_WIDE = 640.0
_SQUARE = 360.0


def page(found: Findings) -> str:
    from jinja2 import Environment, PackageLoader

    folder = files("rerank_cli.reports")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    environment = Environment(
        loader=PackageLoader("rerank_cli.reports", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    quality = found.quality if found.quality and found.quality.found else None
    # With judgements the queries that changed most, otherwise the first of the file.
    lines = [MeasuredCase(case, {}, {}) for case in found.listed]
    if found.quality:
        lines = [*found.quality.wins.best_first(), *reversed(found.quality.losses.best_first())]
    return environment.get_template("page.html").render(
        found=found,
        figures=figures(found),
        quality=quality,
        measures=measures(found.quality),
        ndcg=NDCG,
        examples=examples(found.quality),
        lines=lines,
        settings=list(itertools.islice(settings_of(found.summary), _SETTINGS)),
        stages=_stages(found.summary),
        version=__version__,
        style=style,
        script=script,
        style_hash=style_hash(style),
        script_hash=style_hash(script),
        name=Path(found.output).name,
        **_charts(found),
    )


def style_hash(text: str) -> str:
    """Allows a style or a script in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def figures(found: Findings) -> list[tuple[str, str, str]]:
    """The large numbers at the top as (value, label, detail): amounts, speed, and what improved."""
    shown = [(f"{found.queries:,}", "queries", ""), (f"{found.pairs:,}", "pairs", "")]
    rate = found.summary.get("pairs_per_second")
    if isinstance(rate, int | float):
        seconds = (found.summary.get("seconds") or {}).get("total")
        took = f"{seconds:,.0f} s in total" if isinstance(seconds, int | float) else ""
        shown.append((f"{rate:,.0f}", "pairs per second", took))
    quality = found.quality
    if quality and quality.found:
        before, after = quality.mean_before(NDCG), quality.mean_after(NDCG)
        detail = "" if before is None else f"{before:.3f} before, {after - before:+.3f}"
        shown.append((f"{after:.3f}", NDCG, detail))
    inside, *below = found.ranks.origins(TOP, ORIGINS)
    if inside + sum(below):
        share = sum(below) / (inside + sum(below))
        shown.append((f"{share:.0%}", f"of the top {TOP} are new", "had a lower rank before"))
    if found.first_known:
        share = found.new_first / found.first_known
        shown.append((f"{share:.0%}", "have another passage at rank 1", "of all queries"))
    if found.truncated is not None:
        shown.append((f"{found.truncated / max(1, found.pairs):.0%}", "of the pairs were truncated", ""))
    return shown


def measures(quality: Quality | None) -> list[tuple[str, float | None, float]]:
    """Name, mean before (None if unknown) and mean after."""
    if not quality or not quality.found:
        return []
    return [(name, quality.mean_before(name), quality.mean_after(name)) for name in MEASURES]


def examples(quality: Quality | None) -> list[tuple[str, list[MeasuredCase]]]:
    """The queries that gained most and those that lost most."""
    if not quality:
        return []
    won = [one for one in quality.wins.best_first() if (one.change(NDCG) or 0) > 0]
    return [("won", won[:EXAMPLES]), ("lost", quality.losses.best_first()[:EXAMPLES])]


def _charts(found: Findings) -> dict[str, Any]:
    made: dict[str, Any] = {"scores": None, "relevant": None, "ranks": None, "origins": None, "changes": None}
    counts, relevant, probabilities = found.scores.counts, found.relevant_scores, found.scores.probabilities
    if counts:
        span = min(counts), max(counts)
        made["probabilities"] = probabilities
        made["scores"] = charts.score_chart(counts, probabilities, _FULL, 210.0, span)
        if relevant.total:
            made["relevant"] = charts.score_chart(relevant.steps(probabilities), probabilities, _FULL, 90.0, span)
    if found.ranks.total:
        made["ranks"] = charts.rank_chart(found.ranks, _SQUARE)
        made["origins"] = [
            (f"the top {TOP}", _origins(found, TOP, ORIGINS)),
            ("the top passage", _origins(found, 1, (1, 5, 10, 50))),
        ]
    quality = found.quality
    if quality and quality.compared:
        made["changes"] = charts.change_chart(quality.first, quality.second, _WIDE, 230.0)
        made["before_after"] = charts.before_after_chart(quality.first, quality.second, 300.0)
    return made


def _origins(found: Findings, top: int, bounds: tuple[int, ...]) -> charts.Chart:
    """The shares of `first-stage rank 1–10`, `11–20`, … `above 100`."""
    spans = [f"{low + 1}–{high}" if high > low + 1 else str(high) for low, high in itertools.pairwise((0, *bounds))]
    names = [f"first-stage rank {spans[0]}", *spans[1:], f"above {bounds[-1]}"]
    return charts.share_chart(found.ranks.origins(top, bounds), names, _WIDE, 24.0)


def settings_of(summary: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """A summary flattened to dotted names and values, in its order, without seconds by stage, which have a chart."""
    for name, value in summary.items():
        if isinstance(value, dict):
            if name != "seconds":
                yield from settings_of(value, f"{before}{name}.")
        elif isinstance(value, bool):
            yield before + name, "yes" if value else "no"
        elif isinstance(value, int):
            yield before + name, f"{value:,}"
        elif isinstance(value, list):
            yield before + name, ", ".join(map(str, value))
        elif value is not None:
            yield before + name, str(value)


def _stages(summary: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Stage, seconds, and share of the longest stage."""
    seconds = summary.get("seconds")
    if not isinstance(seconds, dict):
        return []
    known = [(str(name), float(value)) for name, value in seconds.items() if isinstance(value, int | float)]
    longest = max((value for _, value in known), default=0.0) or 1.0
    return [(name, value, value / longest) for name, value in known]


def check_page(path: str, options: ReportOptions, overwrite: bool) -> None:
    """Check that the page can be written. Raises UsageError, RefusedError or OutputError."""
    read = [options.output, *options.inputs, options.qrels, options.baseline, options.summary]
    check_path(path, [name for name in read if name])
    check_kind(path, "an HTML page", (".html", ".htm"))
    refuse_existing(OutputOptions(path, OutputFormat.API, AnswerOptions(""), overwrite=overwrite))


def write_page(path: str, found: Findings) -> int:
    """Write the page; returns its size in bytes."""
    data = page(found).encode("utf-8", "replace")
    write_whole(path, data)
    return len(data)
