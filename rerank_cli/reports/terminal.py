"""Findings for a terminal: the page's figures as a few lines, charts as sparklines and bars."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.display import shown
from rerank_cli.reports.analysis import NDCG, ORIGINS, Findings
from rerank_cli.reports.cases import Case, Measured
from rerank_cli.reports.charts import score_label
from rerank_cli.reports.counts import WIDTH, ScoreCounts
from rerank_cli.reports.page import examples, figures, measures

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 60
_BAR = 30
_PLAIN_WIDTH = 100
_QUERY = 72
_EXAMPLES = 3


def text_of(found: Findings, colour: bool) -> str:
    """The findings as text, as wide as the terminal; plain and of a fixed width without `colour`."""
    console = text_console(colour, _PLAIN_WIDTH)
    with console.capture() as captured:
        _print(found, console)
    return captured.get()


def text_console(colour: bool, plain_width: int) -> Console:
    """Makes text and writes nothing: a closed pipe is not rich's to deal with."""
    return Console(
        file=io.StringIO(),
        width=None if colour else plain_width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _print(found: Findings, console: Console) -> None:
    console.print(Text(shown(found.output, 300), style="bold"))
    for figure in figures(found):
        console.print(
            Text.assemble((f"{figure.value:>9}", "bold"), f"  {figure.label}", (_detail(figure.detail), "dim"))
        )
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    for title, part in (
        ("scores", list(_scores(found))),
        ("movement", list(_movement(found))),
        ("quality", list(_quality(found))),
        ("examples", list(_examples(found))),
        ("longest", [_record(case) for case in found.longest.best_first()[:_EXAMPLES]]),
        ("most truncated", [_record(case) for case in found.most_truncated.best_first()[:_EXAMPLES]]),
    ):
        if part:
            console.print()
            console.print(Text(title, style="bold"))
            for line in part:
                console.print(line, no_wrap=True, overflow="ellipsis")


def _detail(text: str) -> str:
    return f"  ({text})" if text else ""


def sparkline(counts: Sequence[int]) -> str:
    """A character a count, in eight heights; nothing at all is a space."""
    most = max(counts, default=0)
    return "".join(_SPARKS[min(7, count * 8 // most)] if count else " " for count in counts) if most else ""


def _scores(found: Findings) -> Iterator[Text]:
    counts = found.scores.counts
    if not counts:
        return
    low, high = min(counts), max(counts)
    size = max(1, -(-(high - low + 1) // _SPARK_WIDTH))
    bins = -(-(high - low + 1) // size)
    drawn = [("all pairs", found.scores, "blue")]
    if found.relevant_scores.total:
        drawn.append(("relevant", found.relevant_scores, "green"))
    for name, scores, colour in drawn:
        steps = _binned(scores, found.scores.probabilities, low, size, bins)
        yield Text.assemble(f"  {name:<10} ", (sparkline(steps), colour), f"  {scores.total:,}")
    begin, end = (score_label(step * WIDTH, found.scores.probabilities) for step in (low, high + 1))
    yield Text(f"  {'':<10} {begin}{end:>{max(1, bins - len(begin))}}", style="dim")


def _binned(scores: ScoreCounts, probabilities: bool, low: int, size: int, bins: int) -> list[int]:
    found = [0] * bins
    for step, count in scores.steps(probabilities).items():
        found[min(bins - 1, max(0, (step - low) // size))] += count
    return found


def _movement(found: Findings) -> Iterator[Text]:
    if not found.ranks.total:
        return
    counts = found.ranks.origins(10, ORIGINS)
    total = sum(counts)
    low = 0
    for number, count in enumerate(counts):
        name = f"{low + 1}–{ORIGINS[number]}" if number < len(ORIGINS) else f"beyond {low}"
        if count:
            bar = "█" * max(1, round(count / total * _BAR))
            yield Text.assemble(
                f"  were {name:<10} ", (f"{bar:<{_BAR}}", "blue"), f" {count / total:>6.1%} of the first 10"
            )
        low = ORIGINS[number] if number < len(ORIGINS) else low


def _quality(found: Findings) -> Iterator[Text | Table]:
    quality = found.quality
    if not quality or not quality.found:
        return
    for name, before, after in measures(quality):
        change = "" if before is None else f"  {before:.4f} → {after:.4f}  {after - before:+.4f}"
        yield Text(f"  {name:<8}{change or f'  {after:.4f}'}")
    if quality.compared:
        won, lost, same = quality.counts
        yield Text.assemble(
            "  ", (f"{won:,} better", "blue"), ", ", (f"{lost:,} worse", "yellow"), f", {same:,} as before"
        )
        changes = sorted((b - a for a, b in zip(quality.first, quality.second, strict=True)), reverse=True)
        yield Text.assemble("  ", *_change_spark(changes))


def _change_spark(changes: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Sizes of gains, then of losses, sorted, drawn evenly where there are many."""
    count = min(_SPARK_WIDTH, len(changes))
    for place in range(count):
        change = changes[round(place * (len(changes) - 1) / max(1, count - 1))]
        mark = "·" if not change else _SPARKS[min(7, int(abs(change) * 8))]
        yield mark, "blue" if change > 0 else "yellow" if change < 0 else "dim"


def _examples(found: Findings) -> Iterator[Text]:
    for kind, cases in examples(found.quality):
        for one in cases[:_EXAMPLES]:
            yield _example(one, kind)
    if not found.quality:
        for case in found.climbs.best_first():
            yield Text(f"  {case.moved_from:>4} → 1  {_name(case)}")


def _example(one: Measured, kind: str) -> Text:
    figures = f"{one.before[NDCG]:.3f} → {one.after[NDCG]:.3f}"
    return Text.assemble(f"  {kind:<4}  ", (figures, "blue" if kind == "won" else "yellow"), f"  {_name(one.case)}")


def _record(case: Case) -> Text:
    tokens = "" if case.tokens is None else f", {case.tokens:,} tokens"
    cut = f", {case.truncated:,} truncated" if case.truncated else ""
    return Text(f"  {case.candidates:,} candidates{tokens}{cut}  {_name(case)}")


def _name(case: Case) -> str:
    return f"{shown(case.id, 40)}  {shown(case.query or '', _QUERY)}".rstrip()
