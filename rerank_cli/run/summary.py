"""The final statistics of a run: one line of text, and a JSON file."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import orjson

from rerank_cli import __version__
from rerank_cli.display import counted, without_secrets
from rerank_cli.engine.contract import ModelFacts, Work
from rerank_cli.evaluation.evaluate import Evaluation
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.scoring.cache import CacheUse
from rerank_cli.run.scoring.cascade_quality import CascadeUse
from rerank_cli.run.verify import Verdict
from rerank_cli.storage.outputs import write_whole

_LIBRARIES = ("torch", "transformers", "tokenizers", "pyarrow", "orjson")


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of a run. `failure` is the message of the error that ended it, `interrupted` the signal or `max-duration`.

    With `nothing_to_do` the output was complete already. `verdict` is the result of `--verify`, `cache` and `cascade`
    count the pairs that those saved, `evaluation` is the result of `--qrels`.
    """

    stats: RunStatistics
    model: ModelFacts | None = None
    work: Work | None = None
    interrupted: str | None = None
    failure: str | None = None
    nothing_to_do: bool = False
    verdict: Verdict | None = None
    cache: CacheUse | None = None
    cascade: CascadeUse | None = None
    evaluation: Evaluation | None = None

    @property
    def exit_reason(self) -> str:
        """`finished`, `rejected` (finished, with bad records), `failed`, `max-duration`, or the name of a signal."""
        if self.failure:
            return "failed"
        return self.interrupted or ("rejected" if self.stats.rejected else "finished")

    def as_json(self) -> dict[str, Any]:
        stats, work = self.stats, self.work
        return {
            "exit_reason": self.exit_reason,
            "error": self.failure and without_secrets(self.failure),
            "records": stats.records,
            "resumed_records": stats.resumed_records,
            "pairs": stats.pairs,
            "tokens": stats.tokens,
            "truncated_pairs": stats.truncated,
            "duplicate_pairs": stats.duplicates,
            "rejected": stats.rejected,
            "queries_without_candidates": stats.empty,
            "chunks": stats.chunks,
            "seconds": {"total": round(stats.elapsed, 3)} | {k: round(v, 3) for k, v in sorted(stats.seconds.items())},
            "pairs_per_second": round(stats.pairs_per_second, 2),
            "tokens_per_second": round(stats.tokens_per_second, 1),
            "padding_ratio": round(1 - work.tokens / work.computed, 4) if work and work.computed else 0.0,
            "rows": work.rows if work else 0,
            "out_of_memory_splits": work.out_of_memory if work else 0,
            "rescued_scores": work.rescued if work else 0,
            "verified": asdict(self.verdict) if self.verdict else None,
            "cache": asdict(self.cache) if self.cache else None,
            "cascade": asdict(self.cascade) if self.cascade else None,
            "evaluation": self.evaluation.as_json() if self.evaluation else None,
            "model": asdict(self.model) if self.model else None,
            "versions": versions(),
        }

    def record(self) -> dict[str, Any]:
        """What a finished output carries, for `rerank status`."""
        stats, model = self.stats, self.model
        return {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(stats.elapsed, 1),
            "records": stats.records,
            "pairs": stats.pairs,
            "tokens": stats.tokens,
            "rejected": stats.rejected,
            "truncated_pairs": stats.truncated,
            "pairs_per_second": round(stats.pairs_per_second, 2),
            "model": model.name if model else None,
            "revision": model.revision if model else None,
            "device": model.device if model else None,
            "dtype": model.dtype if model else None,
            "version": __version__,
        }

    def line(self) -> str:
        """Records, pairs, rate, and what else was notable, on one line."""
        stats = self.stats
        if not stats.records:
            return "0 records: the input is empty"
        done = f"{counted(stats.records, 'record')}, {counted(stats.pairs, 'pair')} in {stats.elapsed:.1f} s"
        scoring = f"{stats.scoring:.1f} s scoring at {stats.pairs_per_second:,.0f} pairs/s"
        parts = [f"{done}: {stats.elapsed - stats.scoring:.1f} s loading, {scoring}"]
        if stats.truncated:
            parts.append(f"{counted(stats.truncated, 'pair')} truncated")
        if stats.duplicates:
            parts.append(f"{counted(stats.duplicates, 'duplicate')} not scored again")
        parts += [shortcut.line for shortcut in (self.cache, self.cascade) if shortcut]
        if stats.empty:
            parts.append(f"{stats.empty:,} {'query' if stats.empty == 1 else 'queries'} without candidates")
        if stats.rejected:
            parts.append(f"{counted(stats.rejected, 'record')} rejected")
        if self.verdict:
            parts.append(self.verdict.line)
        return ", ".join(parts)


class Summarized(Protocol):
    def as_json(self) -> dict[str, Any]: ...


def write_summary(summary: Summarized, path: str) -> None:
    """Write the JSON, as a whole unless the path is a device or a pipe. Raises OutputError."""
    data = orjson.dumps(summary.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    write_whole(path, data)


def versions() -> dict[str, str]:
    """Versions of rerank, Python and the libraries that scores depend on."""
    found = {"rerank": __version__, "python": platform.python_version()}
    return found | {name: _version(name) for name in _LIBRARIES}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # vendored or built from source without metadata
        return "unknown"
