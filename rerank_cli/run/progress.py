"""How a run shows itself on stderr: a bar on a terminal, plain lines elsewhere, or one JSON object a line.

Reads the stats, writes stderr, knows nothing of what is being done. The JSON lines have the fields of `snapshot`;
fields are only ever added.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson

from rerank_cli.choices import ProgressMode
from rerank_cli.run.statistics import RunStatistics


def snapshot(stats: RunStatistics) -> dict[str, Any]:
    """The stats for a machine: counts, rates a second, share 0 to 1, ETA in seconds (null where unknown)."""
    share, eta = stats.share_done, stats.eta_seconds
    return {
        "event": "loading" if stats.scoring_since is None else "progress",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "records": stats.records,
        "pairs": stats.pairs,
        "tokens": stats.tokens,
        "rejected": stats.rejected,
        "truncated_pairs": stats.truncated,
        "pairs_per_second": round(stats.pairs_per_second, 2),
        "tokens_per_second": round(stats.tokens_per_second, 1),
        "share_done": None if share is None else round(share, 4),
        "eta_seconds": None if eta is None else round(eta, 1),
        "elapsed_seconds": round(stats.elapsed, 2),
    }


def line(stats: RunStatistics) -> str:
    """The stats for a person, on one line."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if stats.scoring_since is None:
        return f"{now}  loading the model"
    share, eta = stats.share_done, stats.eta_seconds
    parts = [
        now,
        f"{stats.records:,} records",
        f"{stats.pairs:,} pairs",
        f"{stats.pairs_per_second:,.0f} pairs/s",
        f"{stats.tokens_per_second:,.0f} tokens/s",
    ]
    if share is not None:
        parts.append(f"{share:.1%}")
    if eta is not None:
        parts.append(f"ETA {clock(eta)}")
    if stats.rejected:
        parts.append(f"{stats.rejected:,} rejected")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def showing(stats: RunStatistics, mode: ProgressMode, interval: float) -> Iterator[None]:
    """Show the stats until the block is left. `auto` is a bar on a terminal, plain lines elsewhere."""
    if mode is ProgressMode.AUTO:
        mode = ProgressMode.BAR if sys.stderr.isatty() else ProgressMode.PLAIN
    if mode is ProgressMode.OFF:
        yield
    elif mode is ProgressMode.BAR:
        with _bar(stats):
            yield
    else:
        with _ticking(lambda: say(stats, mode), interval):
            yield
        if mode is ProgressMode.JSON:
            say(stats, mode)


def say(stats: RunStatistics, mode: ProgressMode) -> None:
    """Print one line about the stats now."""
    text = orjson.dumps(snapshot(stats)).decode() if mode is ProgressMode.JSON else line(stats)
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _ticking(act: Any, interval: float) -> Iterator[None]:
    done = threading.Event()

    def tick() -> None:
        while not done.wait(interval):
            act()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _bar(stats: RunStatistics) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[share]}"),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as progress:
        task = progress.add_task("", total=1000 if stats.total_bytes else None, share="", text="loading the model")

        def update() -> None:
            if stats.scoring_since is None:
                return
            share, eta = stats.share_done, stats.eta_seconds
            text = f"{stats.pairs:,} pairs  {stats.pairs_per_second:,.0f}/s"
            text += "" if eta is None else f"  ETA {clock(eta)}"
            text += f"  {stats.rejected:,} rejected" if stats.rejected else ""
            percent = "" if share is None else f"{share:.0%}"
            progress.update(task, completed=None if share is None else share * 1000, share=percent, text=text)

        with _ticking(update, 0.2):
            yield
