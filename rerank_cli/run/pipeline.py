"""Chunks through a scoring into the output: read, score and write side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rerank_cli.engine.contract import StopRequested
from rerank_cli.run.chunks import Chunk
from rerank_cli.run.committer import Committer
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.local import MakeScoring
from rerank_cli.run.stages import Scored, join, slices
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.threads import Ahead, Behind
from rerank_cli.run.verify import Sample


def stream(
    chunks: Iterable[Chunk],
    slice_pairs: int,
    scoring: MakeScoring,
    ledger: Committer,
    journal: Journal,
    stats: RunStatistics,
    stop: Callable[[], bool],
    sample: Sample | None = None,
) -> bool:
    """Work the chunks off; True when they came to their end, False when `stop` said so before. `sample` draws on all.

    However it ends, what was written is committed, and the rows of the chunk at hand are noted, unless writing itself
    has failed.
    """
    writer = Behind[Scored](ledger.take)
    cut_ahead = Ahead(chunks)
    scored = scoring(lambda: stop() or writer.failed)(slices(stats.waiting("wait for input", cut_ahead), slice_pairs))
    try:
        for whole in join(scored):
            if sample:
                sample.take(whole)
            with stats.timing("wait for output"):
                writer.put(whole)
        return True
    except StopRequested:
        journal.write()
        return False
    finally:
        cut_ahead.close()
        scored.close()
        writer.close()
        ledger.commit()
