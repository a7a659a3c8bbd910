"""A whole run: open input and output, load the model, stream chunks through it, commit each, publish the output.

Order of commits: output bytes, then fsync, then the tally. What is committed is a prefix of the final output, and
nothing stands under the final name before everything is written.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO

from rerank_cli.engine.contract import ModelOptions, Session, StopRequested
from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats import (
    ErrorsFile,
    InputOptions,
    OutputOptions,
    Sink,
    Source,
    check_output,
    open_sink,
    open_source,
)
from rerank_cli.jobs.background import Ahead, Behind
from rerank_cli.jobs.chunks import cut
from rerank_cli.jobs.progress import ProgressMode, say, showing
from rerank_cli.jobs.signals import Stop, listening
from rerank_cli.jobs.stages import Scored, Slice, join, prepare_slices, rank_chunk
from rerank_cli.jobs.summary import Summary, write_summary
from rerank_cli.jobs.tally import Tally
from rerank_cli.records import Record, Rejection

_FIRST_LOOK = 32


class OnError(StrEnum):
    """What a bad record does: end the run, be left out, or be answered by an error in its place."""

    FAIL = "fail"
    SKIP = "skip"
    EMIT = "emit"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything a run depends on. None takes the default of the device or the model."""

    model: ModelOptions
    input: InputOptions
    output: OutputOptions
    stdout: BinaryIO | None = None
    top_n: int | None = None
    limit: int | None = None
    chunk_pairs: int | None = None
    on_error: OnError = OnError.FAIL
    errors: str | None = None
    max_errors: int | None = None
    progress: ProgressMode = ProgressMode.AUTO
    progress_interval: float = 30.0
    summary: str | None = None
    notify: Callable[[str], None] = field(default=lambda _: None)


def run(config: RunConfig, open_model: Callable[[ModelOptions], Session]) -> tuple[Summary, Stop]:
    """Do the job. The caller ends the process by `Stop.signal` if it is set.

    Raises RerankError subclasses with one line for a person, and BrokenPipeError when the reader of stdout has gone.
    """
    check_output(config.output, config.input.paths)
    if config.errors and config.on_error is OnError.FAIL:
        raise UsageError("--errors needs --on-error skip or emit: with fail the first bad record ends the run")
    tally = Tally()
    stop = Stop()
    with ExitStack() as stack:
        source = open_source(config.input)
        stack.callback(source.close)
        tally.total_bytes = source.total_bytes
        records = _look_ahead(_guarded(itertools.islice(source, config.limit), config, tally))
        config.notify(f"{source.description}")
        stack.enter_context(showing(tally, config.progress, config.progress_interval))
        with tally.timing("load"):
            session = open_model(config.model)
        config.notify(_where(session))
        sink = open_sink(config.output, columns=source.columns, stdout=config.stdout)
        stack.callback(sink.abandon)
        quarantine = ErrorsFile(config.errors) if config.errors else None
        if quarantine:
            stack.callback(quarantine.close)
        tally.scoring_since = time.monotonic()
        stack.enter_context(listening(stop, _announce, lambda: say(tally, ProgressMode.PLAIN)))
        finished = _stream(config, records, source, session, sink, quarantine, tally, stop)
        if finished:
            with tally.timing("write"):
                sink.publish()
    summary = Summary(_reason(tally, stop, finished), tally, session.facts, session.work)
    if config.summary:
        write_summary(summary, config.summary)
    return summary, stop


def _stream(
    config: RunConfig,
    records: Iterator[Record],
    source: Source,
    session: Session,
    sink: Sink,
    quarantine: ErrorsFile | None,
    tally: Tally,
    stop: Stop,
) -> bool:
    """Read, tokenize, score and write side by side; True when the input was worked off to its end."""
    chunk_pairs = config.chunk_pairs or session.sizes.chunk_pairs
    writer = Behind[Scored](lambda scored: _commit(config, scored, sink, quarantine, tally))
    chunks = Ahead(cut(records, chunk_pairs, lambda: source.bytes_read))
    slices = Ahead(prepare_slices(chunks, session, 2 * chunk_pairs, tally), until=stop)
    try:
        for scored in _score(slices, session, tally, lambda: stop() or writer.failed):
            writer.put(scored)
    except StopRequested:
        pass
    finally:
        slices.close()
        chunks.close()
        writer.close()
    return not stop()


def _score(
    slices: Iterable[Slice], session: Session, tally: Tally, should_stop: Callable[[], bool]
) -> Iterator[Scored]:
    """Slices to whole chunks, on the thread that owns the device."""
    done: list[Slice] = []
    logits = []
    for part in slices:
        with tally.timing("score"):
            logits.append(session.score(part.prepared, should_stop))
        done.append(part)
        if part.last:
            yield join(part.chunk, logits, [slice.prepared for slice in done])
            done, logits = [], []


def _commit(config: RunConfig, scored: Scored, sink: Sink, quarantine: ErrorsFile | None, tally: Tally) -> None:
    """Write one chunk and make it durable, then count it."""
    outcomes = rank_chunk(scored, config.top_n)
    rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
    unscored = [rejection for rejection in rejected if rejection.code == "non_finite_score"]
    if unscored and config.on_error is OnError.FAIL:
        raise InputError(f"{unscored[0]}. Fix: --dtype fp32, or --on-error skip")
    with tally.timing("write"):
        if config.on_error is not OnError.EMIT:
            outcomes = [outcome for outcome in outcomes if not isinstance(outcome, Rejection)]
        sink.write(outcomes)
        sink.commit()
        if quarantine:
            for rejection in rejected:
                quarantine.write(rejection)
            quarantine.commit()
    tally.records += len(scored.chunk.records)
    tally.rejected += len(rejected)
    tally.pairs += scored.chunk.pairs
    tally.tokens += int(scored.tokens.sum())
    tally.truncated += scored.truncated
    tally.duplicates += scored.duplicates
    tally.chunks += 1
    tally.bytes_done = scored.chunk.bytes_read


def _guarded(records: Iterator[Record], config: RunConfig, tally: Tally) -> Iterator[Record]:
    """Hold bad records to `--on-error` and `--max-errors` as they are read."""
    bad = 0
    while True:
        with tally.timing("read"):
            record = next(records, None)
        if record is None:
            return
        if isinstance(record, Rejection):
            bad += 1
            if config.on_error is OnError.FAIL:
                raise InputError(f"{record}. Fix: --on-error skip, or emit")
            if config.max_errors is not None and bad > config.max_errors:
                raise InputError(f"{record} (the {bad}. bad record, more than --max-errors {config.max_errors})")
        yield record


def _look_ahead(records: Iterator[Record]) -> Iterator[Record]:
    """Read the first few records now, so that a bad one shows before a model is loaded."""
    first = list(itertools.islice(records, _FIRST_LOOK))
    return itertools.chain(first, records)


def _where(session: Session) -> str:
    facts = session.facts
    how = "packed rows" if facts.packed else "padded batches"
    return f"{facts.name} on {facts.device} in {facts.dtype}, {how} of {facts.batch_tokens} tokens"


def _announce(name: str) -> None:
    message = f"rerank: {name}, finishing the batch at hand (again to quit at once)\n"
    os.write(2, message.encode())


def _reason(tally: Tally, stop: Stop, finished: bool) -> str:
    if not finished and stop.signal:
        return stop.signal.name
    return "rejected" if tally.rejected else "finished"
