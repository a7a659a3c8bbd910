"""Progress on stderr: a bar, plain lines, or JSON lines with the fields of `snapshot`, of which none may be removed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from rerank_cli.choices import ProgressMode

_NOTE_SECONDS = 2.0


class Figures(Protocol):
    """What is shown of a run, or of all runs of a process; see `statistics.RunStatistics`."""

    total_bytes: int | None
    scoring_since: float | None

    @property
    def records(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def truncated(self) -> int: ...
    @property
    def pairs_done(self) -> int: ...
    @property
    def tokens_done(self) -> int: ...
    @property
    def pairs_per_second(self) -> float: ...
    @property
    def tokens_per_second(self) -> float: ...
    @property
    def share_done(self) -> float | None: ...
    @property
    def eta_seconds(self) -> float | None: ...
    @property
    def elapsed(self) -> float: ...
    @property
    def workers(self) -> Callable[[], list[dict[str, Any]]]: ...


def snapshot(stats: Figures) -> dict[str, Any]:
    """The statistics as JSON: counts, rates per second, share 0 to 1, ETA in seconds (null where unknown)."""
    share, eta = stats.share_done, stats.eta_seconds
    return {
        "event": "loading" if stats.scoring_since is None else "progress",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "records": stats.records,
        "pairs": stats.pairs_done,
        "tokens": stats.tokens_done,
        "rejected": stats.rejected,
        "truncated_pairs": stats.truncated,
        "pairs_per_second": round(stats.pairs_per_second, 2),
        "tokens_per_second": round(stats.tokens_per_second, 1),
        "share_done": None if share is None else round(share, 4),
        "eta_seconds": None if eta is None else round(eta, 1),
        "elapsed_seconds": round(stats.elapsed, 2),
        "workers": stats.workers(),
    }


def line(stats: Figures) -> str:
    """The statistics as one line of text."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if stats.scoring_since is None:
        return f"{now}  loading the model"
    parts = [now, f"{stats.records:,} records", f"{stats.pairs_done:,} pairs"]
    parts += [f"{stats.pairs_per_second:,.0f} pairs/s", f"{stats.tokens_per_second:,.0f} tokens/s"]
    if stats.share_done is not None:
        parts.append(f"{stats.share_done:.1%}")
    return "  ".join([*parts, *_eta_and_rejected(stats)])


def _eta_and_rejected(stats: Figures) -> Iterator[str]:
    if (eta := stats.eta_seconds) is not None:
        minutes, seconds = divmod(round(eta), 60)
        hours, minutes = divmod(minutes, 60)
        yield f"ETA {hours}:{minutes:02d}:{seconds:02d}" if hours else f"ETA {minutes}:{seconds:02d}"
    if stats.rejected:
        yield f"{stats.rejected:,} rejected"


@contextmanager
def showing(stats: Figures, mode: ProgressMode, interval: float) -> Iterator[None]:
    """Show progress until the block is left: a bar (`auto` on a terminal), or a line every `interval` seconds."""
    if mode is ProgressMode.AUTO:
        drawn = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        mode = ProgressMode.BAR if drawn else ProgressMode.PLAIN
    if mode is ProgressMode.OFF:
        yield
    elif mode is ProgressMode.BAR:
        with _bar(stats):
            yield
    else:
        with ticking(lambda: say(stats, mode), interval):
            yield
        if mode is ProgressMode.JSON:
            say(stats, mode)


@contextmanager
def noted(stats: Figures, note: Callable[[str], None] | None) -> Iterator[None]:
    """Keep a note of the progress up to date until the block is left, for `rerank status`."""
    if note is None:
        yield
        return
    with ticking(lambda: note(orjson.dumps(snapshot(stats)).decode()), _NOTE_SECONDS):
        yield


def say(stats: Figures, mode: ProgressMode) -> None:
    """Print one line, of JSON or of text, in one write: messages come from another thread."""
    text = orjson.dumps(snapshot(stats)).decode() if mode is ProgressMode.JSON else line(stats)
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def ticking(act: Callable[[], None], interval: float) -> Iterator[None]:
    """Call `act` every `interval` seconds on a thread until the block is left."""
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
def _bar(stats: Figures) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    share, text = TextColumn("{task.fields[share]}"), TextColumn("{task.fields[text]}", markup=False)
    columns = (SpinnerColumn(), BarColumn(bar_width=None), share, text)
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as progress:
        task = progress.add_task("", total=1000 if stats.total_bytes else None, share="", text="loading the model")

        def update() -> None:
            if stats.scoring_since is None:
                return
            done, pairs = stats.share_done, f"{stats.pairs_done:,} pairs  {stats.pairs_per_second:,.0f}/s"
            text = "  ".join([pairs, *_eta_and_rejected(stats)])
            percent = "" if done is None else f"{done:.0%}"
            progress.update(task, completed=None if done is None else done * 1000, share=percent, text=text)

        with ticking(update, 0.2):
            yield
