"""Chunks through the model into the output: read, tokenize, score and write side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rerank_cli.engine.contract import Session, StopRequested
from rerank_cli.jobs.background import Ahead, Behind
from rerank_cli.jobs.chunks import Chunk
from rerank_cli.jobs.journal import Journal
from rerank_cli.jobs.ledger import Ledger
from rerank_cli.jobs.signals import Stop
from rerank_cli.jobs.stages import Scored, Slice, join, prepare_slices
from rerank_cli.jobs.tally import Tally
from rerank_cli.jobs.verify import Sample


def stream(
    chunks: Iterable[Chunk],
    slice_pairs: int,
    session: Session,
    ledger: Ledger,
    journal: Journal,
    tally: Tally,
    stop: Stop,
    sample: Sample | None = None,
) -> bool:
    """Work the chunks off; True when they came to their end, False when `stop` said so before. `sample` draws on all.

    However it ends, what was written is committed, and the rows of the chunk at hand are noted, unless writing itself
    has failed.
    """
    writer = Behind[Scored](ledger.take)
    cut_ahead = Ahead(chunks)
    slices = Ahead(prepare_slices(cut_ahead, session, slice_pairs, tally), until=stop)
    try:
        for scored in _score(slices, session, journal, tally, lambda: stop() or writer.failed):
            if sample:
                sample.take(scored)
            writer.put(scored)
    except StopRequested:
        journal.write()
    finally:
        slices.close()
        cut_ahead.close()
        writer.close()
        ledger.commit()
    return slices.exhausted


def _score(
    slices: Iterable[Slice], session: Session, journal: Journal, tally: Tally, should_stop: Callable[[], bool]
) -> Iterator[Scored]:
    """Slices to whole chunks, on the thread that owns the device."""
    done: list[Slice] = []
    logits = []
    for part in slices:
        notes = journal.notes(part.chunk.reached.digest, part.part)
        with tally.timing("score"):
            logits.append(session.score(part.prepared, should_stop, notes))
        done.append(part)
        if part.last:
            yield join(done, logits)
            done, logits = [], []
