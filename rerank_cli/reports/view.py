"""Queries and their reranked passages as text, one query at a time, read only as far as it is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from rich.text import Text

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.rank_comparison import RankComparison, RankedResult
from rerank_cli.reports.cases import shorten
from rerank_cli.reports.collect import open_comparison
from rerank_cli.reports.terminal import text_console

_PLAIN_WIDTH = 120
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR = 8
_LONGEST = 1000
_INDENT = 6


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """Which queries of which file: `query` is the id of a single one, `top` the number of passages per query."""

    path: str
    inputs: tuple[str, ...] = ()
    qrels: str | None = None
    query: str | None = None
    top: int = 10


def queries(options: ViewOptions, stack: ExitStack) -> Iterator[tuple[RankComparison, Mapping[str, int]]]:
    """The queries to show with their judgements. Raises InputError, before the first, for files that cannot be used."""
    qrels = read_qrels(options.qrels) if options.qrels else {}
    _, found = open_comparison(options.path, options.inputs, stack)
    return _chosen(found, qrels, options)


def _chosen(
    found: Iterable[RankComparison], qrels: Mapping[str, Mapping[str, int]], options: ViewOptions
) -> Iterator[tuple[RankComparison, Mapping[str, int]]]:
    any_shown = False
    for query in found:
        if options.query in (None, query.id):
            any_shown = True
            yield query, qrels.get(query.id, {})
            if options.query is not None:
                return
    if not any_shown:
        what = f"no query with this id (got `{shown(options.query)}`)" if options.query else "has no answers"
        raise InputError(f"{shown(options.path, 300)}: {what}")


def text_of(query: RankComparison, judged: Mapping[str, int], top: int, colour: bool, full: bool = False) -> str:
    """One query: its text, a line per passage, and an empty line. Without `colour` plain and 120 characters wide.

    With `full`, texts are whole and wrapped: the query, and each passage below its line.
    """
    console = text_console(colour, _PLAIN_WIDTH)
    scores = [place.result.score for place in query.results]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    span = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    with console.capture() as captured:
        name = Text.assemble((shown(query.id, 60), "cyan"), "  ")
        if full:
            console.print(name.append("\n".join(_lines(query.query)), "bold"))
        else:
            text = shown(shorten(query.query or "", _LONGEST), _LONGEST)
            console.print(name.append(text, "bold"), no_wrap=True, overflow="ellipsis")
        for place in query.results[:top]:
            console.print(_line(place, judged, span, full), no_wrap=True, overflow="ellipsis")
            for line in _lines(place.result.text) if full else ():
                for part in Text(line).wrap(console, max(1, console.width - _INDENT)):
                    console.print(Text(" " * _INDENT).append(part), no_wrap=True)
        hidden = len(query.results) - top
        if hidden > 0:
            console.print(Text(f"      … {hidden:,} more", style="dim"))
        console.print()
    return captured.get()


def _lines(text: str | None) -> list[str]:
    """The lines of a whole text, with what a terminal would act on escaped."""
    return [shown(line, len(line)) for line in (text or "").expandtabs(4).splitlines()]


def _line(place: RankedResult, judged: Mapping[str, int], span: tuple[float, float], full: bool) -> Text:
    result = place.result
    relevance = judged.get(result.id)
    mark = ("  ", "") if relevance is None else ("✓ ", "bold green") if relevance > 0 else ("✗ ", "yellow")
    text = " ".join(part for part in (result.title, None if full else result.text) if part)
    moved, style = " " * 15, ""
    if place.first_rank is not None:
        change = place.first_rank - place.rank
        sign, style = ("▲", "blue") if change > 0 else ("▼", "yellow") if change < 0 else ("=", "dim")
        moved = f"was {place.first_rank:>4} {sign}{abs(change) or '':<5}"
    return Text.assemble(
        f"{place.rank:>4}  ",
        (bar(result.score, span), "blue"),
        f" {result.score:>8.4f}  ",
        (moved, style),
        "  ",
        mark,
        (shown(result.id, 40), "dim"),
        "  ",
        shown(shorten(text, _LONGEST), _LONGEST),
    )


def bar(score: float, span: tuple[float, float]) -> str:
    """A score as a bar of eight characters, in eighths of a character."""
    low, high = span
    share = 1.0 if high <= low else (score - low) / (high - low)
    eighths = math.floor(max(0.0, min(1.0, share)) * _BAR * 8 + 0.5)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(_BAR)
