"""A report as text for a terminal: the page's figures in a few lines, charts as sparklines and bars."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from rerank_cli.display import shown
from rerank_cli.reports.analysis import NDCG, ORIGINS, Findings
from rerank_cli.reports.cases import Case
from rerank_cli.reports.charts import score_label
from rerank_cli.reports.counts import WIDTH
from rerank_cli.reports.page import examples, figures, measures

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 60
_BAR = 30
_PLAIN_WIDTH = 100
_QUERY = 72
_EXAMPLES = 3


def text_of(found: Findings, colour: bool) -> str:
    """The report as text, as wide as the terminal; without `colour` plain and 100 characters wide."""
    console = text_console(colour, _PLAIN_WIDTH)
    with console.capture() as captured:
        console.print(Text(shown(found.output, 300), style="bold"))
        for value, label, detail in figures(found):
            console.print(
                Text.assemble((f"{value:>9}", "bold"), f"  {label}", (f"  ({detail})" if detail else "", "dim"))
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
    return captured.get()


def text_console(colour: bool, plain_width: int) -> Console:
    """A console for `capture`, which writes nothing itself: rich would swallow a closed pipe."""
    return Console(
        file=io.StringIO(),
        width=None if colour else plain_width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        markup=False,
        emoji=False,
    )


def sparkline(counts: Sequence[int]) -> str:
    """One character per count, in eight heights; a space for 0."""
    most = max(counts, default=0)
    return "".join(_SPARKS[min(7, count * 8 // most)] if count else " " for count in counts) if most else ""


def _scores(found: Findings) -> Iterator[Text]:
    counts, probabilities = found.scores.counts, found.scores.probabilities
    if not counts:
        return
    low, high = min(counts), max(counts)
    size = max(1, -(-(high - low + 1) // _SPARK_WIDTH))
    bins = -(-(high - low + 1) // size)
    drawn = [("all pairs", found.scores, "blue"), ("relevant", found.relevant_scores, "green")]
    for name, scores, colour in drawn:
        if scores.total:
            binned = [0] * bins
            for step, count in scores.steps(probabilities).items():
                binned[min(bins - 1, max(0, (step - low) // size))] += count
            yield Text.assemble(f"  {name:<10} ", (sparkline(binned), colour), f"  {scores.total:,}")
    begin, end = (score_label(step * WIDTH, probabilities) for step in (low, high + 1))
    yield Text(f"  {'':<10} {begin}{end:>{max(1, bins - len(begin))}}", style="dim")


def _movement(found: Findings) -> Iterator[Text]:
    if not found.ranks.total:
        return
    counts = found.ranks.origins(10, ORIGINS)
    total = sum(counts)
    names = [f"{low + 1}–{high}" for low, high in zip((0, *ORIGINS), ORIGINS, strict=False)]
    for name, count in zip((*names, f"above {ORIGINS[-1]}"), counts, strict=True):
        if count:
            bar = "█" * max(1, round(count / total * _BAR))
            share = f" {count / total:>6.1%} of the top 10"
            yield Text.assemble(f"  were {name:<10} ", (f"{bar:<{_BAR}}", "blue"), share)


def _quality(found: Findings) -> Iterator[Text]:
    quality = found.quality
    if not quality or not quality.found:
        return
    for name, before, after in measures(quality):
        change = f"{after:.4f}" if before is None else f"{before:.4f} → {after:.4f}  {after - before:+.4f}"
        yield Text(f"  {name:<8}  {change}")
    if quality.compared:
        won, lost, same = quality.counts
        yield Text.assemble(
            "  ", (f"{won:,} better", "blue"), ", ", (f"{lost:,} worse", "yellow"), f", {same:,} unchanged"
        )
        changes = sorted((b - a for a, b in zip(quality.first, quality.second, strict=True)), reverse=True)
        line = Text("  ")
        count = min(_SPARK_WIDTH, len(changes))  # of more changes, an even sample
        for place in range(count):
            gain = changes[round(place * (len(changes) - 1) / max(1, count - 1))]
            mark = "·" if not gain else _SPARKS[min(7, int(abs(gain) * 8))]
            line.append(mark, "blue" if gain > 0 else "yellow" if gain < 0 else "dim")
        yield line


def _examples(found: Findings) -> Iterator[Text]:
    for kind, cases in examples(found.quality):
        for one in cases[:_EXAMPLES]:
            change = (f"{one.before[NDCG]:.3f} → {one.after[NDCG]:.3f}", "blue" if kind == "won" else "yellow")
            yield Text.assemble(f"  {kind:<4}  ", change, f"  {_name(one.case)}")
    if not found.quality:
        for case in found.climbs.best_first():
            yield Text(f"  {case.moved_from:>4} → 1  {_name(case)}")


def _record(case: Case) -> Text:
    tokens = "" if case.tokens is None else f", {case.tokens:,} tokens"
    cut = f", {case.truncated:,} truncated" if case.truncated else ""
    return Text(f"  {case.candidates:,} candidates{tokens}{cut}  {_name(case)}")


def _name(case: Case) -> str:
    return f"{shown(case.id, 40)}  {shown(case.query or '', _QUERY)}".rstrip()
