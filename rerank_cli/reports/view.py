"""Queries and their reranked passages as lines of text, one query at a time: nothing is read before it is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from rerank_cli.display import shown
from rerank_cli.errors import InputError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.rank_comparison import Placed, RankComparison, compare_ranks
from rerank_cli.formats.runs.results import RunFile
from rerank_cli.reports.cases import shorten
from rerank_cli.reports.terminal import text_console

_PLAIN_WIDTH = 120
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR = 8
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """Which queries of which file: `query` is the id of a single one, `top` the passages shown of each."""

    path: str
    inputs: tuple[str, ...] = ()
    qrels: str | None = None
    query: str | None = None
    top: int = 10


def queries(options: ViewOptions, stack: ExitStack) -> Iterator[tuple[RankComparison, Mapping[str, int]]]:
    """The queries to be shown with their judgements; InputError for files that cannot be used, before the first one."""
    qrels = read_qrels(options.qrels) if options.qrels else {}
    answers = RunFile(options.path)
    stack.callback(answers.close)
    source = open_source(InputOptions(options.inputs)) if options.inputs else None
    if source:
        stack.callback(source.close)
    return _chosen(compare_ranks(answers, source), qrels, options)


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
        what = (
            f"no query with this id (got `{shown(options.query)}`)" if options.query else "there are no answers in it"
        )
        raise InputError(f"{shown(options.path, 300)}: {what}")


def text_of(query: RankComparison, judged: Mapping[str, int], top: int, colour: bool) -> str:
    """One query: its text, then a line a passage, and an empty line. As wide as the terminal, if there is one."""
    console = text_console(colour, _PLAIN_WIDTH)
    with console.capture() as captured:
        _print(query, judged, top, console)
    return captured.get()


def _print(query: RankComparison, judged: Mapping[str, int], top: int, console: Console) -> None:
    text = shown(shorten(query.query or "", _LONGEST), _LONGEST)
    name = Text.assemble((shown(query.id, 60), "cyan"), "  ", (text, "bold"))
    console.print(name, no_wrap=True, overflow="ellipsis")
    lowest = min((place.result.score for place in query.results), default=0.0)
    highest = max((place.result.score for place in query.results), default=1.0)
    span = (0.0, 1.0) if lowest >= 0 and highest <= 1 else (lowest, highest)
    for place in query.results[:top]:
        console.print(_line(place, judged, span), no_wrap=True, overflow="ellipsis")
    hidden = len(query.results) - top
    if hidden > 0:
        console.print(Text(f"      … {hidden:,} more", style="dim"))
    console.print()


def _line(place: Placed, judged: Mapping[str, int], span: tuple[float, float]) -> Text:
    result = place.result
    relevance = judged.get(result.id)
    mark = ("  ", "") if relevance is None else ("✓ ", "bold green") if relevance > 0 else ("✗ ", "yellow")
    text = " ".join(part for part in (result.title, result.text) if part)
    return Text.assemble(
        f"{place.rank:>4}  ",
        (bar(result.score, span), "blue"),
        f" {result.score:>8.4f}  ",
        _moved(place),
        "  ",
        mark,
        (shown(result.id, 40), "dim"),
        "  ",
        shown(shorten(text, _LONGEST), _LONGEST),
    )


def bar(score: float, span: tuple[float, float]) -> str:
    """A score as a bar of eight characters, in steps of an eighth of one."""
    low, high = span
    share = 1.0 if high <= low else (score - low) / (high - low)
    eighths = math.floor(max(0.0, min(1.0, share)) * _BAR * 8 + 0.5)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(_BAR)


def _moved(place: Placed) -> tuple[str, str]:
    """The first-stage rank, and how many places it rose or sank since."""
    if place.first_rank is None:
        return " " * 15, ""
    change = place.first_rank - place.rank
    sign, style = ("▲", "blue") if change > 0 else ("▼", "yellow") if change < 0 else ("=", "dim")
    return f"was {place.first_rank:>4} {sign}{abs(change) or '':<5}", style
