"""Reading, scoring and writing run concurrently: chunks go through a scoring into the output."""

from __future__ import annotations

from collections.abc import Callable

from rerank_cli.engine.contract import StopRequested
from rerank_cli.run.chunks import ChunkCutter
from rerank_cli.run.committer import Committer
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.local import MakeScoring
from rerank_cli.run.stages import Scored, join, slices
from rerank_cli.run.threads import Ahead, Behind
from rerank_cli.run.verify import Sample
from rerank_cli.storage.opening import WhenIdle


def stream(
    chunks: ChunkCutter,
    slice_pairs: int | None,
    scoring: MakeScoring,
    committer: Committer,
    journal: Journal,
    stats: RunStatistics,
    stop: Callable[[], bool],
    sample: Sample | None = None,
    when_idle: Callable[[WhenIdle], None] | None = None,
) -> bool:
    """Process the chunks; True if all were processed, False if `stop` ended the run early. `sample` draws from all.

    A chunk is closed early if the input is idle and no other chunk waits; `when_idle` is that of the source.
    Written chunks are always committed, unless writing failed. After a stop the journal has the current chunk's rows.
    """
    writer = Behind[Scored](committer.take)
    cut_ahead = Ahead(chunks, start=False)

    def close_early() -> bool:
        if cut_ahead.full:
            return False
        if (chunk := chunks.close()) is not None:
            cut_ahead.put(chunk)
        return True

    if when_idle:
        when_idle(close_early)
    cut_ahead.start()
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
        committer.commit()
