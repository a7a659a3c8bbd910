"""A whole run: open input and output, load the model, stream chunks through it, commit them, publish the output.

Order of commits: output bytes, then their fsync, then the checkpoint. Nothing stands under the final name before
everything is written; the same run begun again goes on behind the last commit and writes the same bytes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial

from rerank_cli.engine.contract import ModelOptions, Session, StopRequested
from rerank_cli.errors import RerankError, UsageError
from rerank_cli.formats import ErrorsFile, Sink, Source, check_output, check_side_file, open_sink, open_source
from rerank_cli.jobs.background import Ahead, Behind
from rerank_cli.jobs.checkpoint import Checkpoint
from rerank_cli.jobs.choices import OnError, ProgressMode
from rerank_cli.jobs.chunks import Chunk, cut
from rerank_cli.jobs.fingerprint import Trace, fingerprint
from rerank_cli.jobs.intake import behind, guarded, look_ahead
from rerank_cli.jobs.ledger import Ledger
from rerank_cli.jobs.options import RunConfig
from rerank_cli.jobs.progress import say, showing
from rerank_cli.jobs.signals import Stop, listening
from rerank_cli.jobs.stages import Scored, Slice, join, prepare_slices
from rerank_cli.jobs.summary import Summary, write_summary
from rerank_cli.jobs.tally import Tally
from rerank_cli.jobs.workplace import Workplace
from rerank_cli.records import Record


def run(config: RunConfig, open_model: Callable[[ModelOptions], Session]) -> tuple[Summary, Stop]:
    """Do the job. The caller ends the process by `Stop.signal` if the summary says that it was interrupted.

    Raises RerankError subclasses with one line for a person, and BrokenPipeError when the reader of stdout has gone.
    """
    _check(config)
    tally, stop = Tally(), Stop()
    place = Workplace.of(config.output.path)
    try:
        with ExitStack() as stack:
            stack.enter_context(place.held())
            session = _work(config, open_model, place, tally, stop, stack)
    except RerankError as error:
        if tally.chunks and place.keeps:
            config.notify(f"{tally.records:,} records are kept; once this is mended, the same command goes on")
        if config.summary:
            write_summary(Summary(tally, failure=str(error)), config.summary)
        raise
    interrupted = stop.signal.name if stop.signal and not tally.finished else None
    summary = Summary(tally, session.facts, session.work, interrupted)
    if config.summary:
        write_summary(summary, config.summary)
    return summary, stop


def _work(
    config: RunConfig,
    open_model: Callable[[ModelOptions], Session],
    place: Workplace,
    tally: Tally,
    stop: Stop,
    stack: ExitStack,
) -> Session:
    """Open everything, stream the records through, publish."""
    saved = place.saved(config.resume)
    source, records = _open_input(config, tally, stop, stack)
    stack.enter_context(showing(tally, config.progress, config.progress_interval))
    session = _load(config, open_model, tally)
    chunk_pairs = config.chunk_pairs or _recorded(saved) or session.sizes.chunk_pairs
    mark, trace = fingerprint(config, session.facts, chunk_pairs), Trace()
    if saved:
        place.refuse_another_run(saved, mark)
        records = behind(records, saved, trace, config.output.path)
        tally.go_on_from(saved.counts)
        config.notify(f"going on after {saved.records:,} records")
    else:
        place.forget()
    sink, quarantine = _open_output(config, source, saved, stack)
    ledger = Ledger(sink, quarantine, tally, partial(place.record, mark, tally), config.top_n, config.on_error)
    tally.scoring_since = time.monotonic()
    stack.enter_context(listening(stop, _announce, lambda: say(tally, ProgressMode.PLAIN)))
    chunks = cut(records, chunk_pairs, lambda: source.bytes_read, trace)
    tally.finished = _stream(chunks, chunk_pairs, session, ledger, tally, stop)
    if tally.finished:
        with tally.timing("write"):
            sink.publish()
        place.forget()
    return session


def _check(config: RunConfig) -> None:
    """What can be told before anything is opened."""
    check_output(config.output, config.input.paths, config.stdout)
    if config.errors is not None and config.on_error is OnError.FAIL:
        raise UsageError("--errors needs --on-error skip or emit: with fail the first bad record ends the run")
    for flag, path in (("--errors", config.errors), ("--summary", config.summary)):
        if path is not None:
            check_side_file(path, flag, config.output, config.input.paths)


def _open_input(config: RunConfig, tally: Tally, stop: Stop, stack: ExitStack) -> tuple[Source, Iterator[Record]]:
    """The input and its records, of which the first few have been read.

    It is not closed on a request to stop: a thread may hang in a read of it, and the process is about to end.
    """
    source = open_source(config.input)
    stack.callback(lambda: None if stop() else source.close())
    tally.total_bytes = source.total_bytes
    limited = itertools.islice(iter(source), config.limit)
    records = guarded(limited, config.on_error, config.max_errors, tally)
    records = look_ahead(records, live=source.total_bytes is None)
    config.notify(source.description)
    return source, records


def _load(config: RunConfig, open_model: Callable[[ModelOptions], Session], tally: Tally) -> Session:
    with tally.timing("load"):
        session = open_model(config.model)
    facts = session.facts
    how = "packed rows" if facts.packed else "padded batches"
    config.notify(f"{facts.name} on {facts.device} in {facts.dtype}, {how} of {facts.batch_tokens} tokens")
    return session


def _open_output(
    config: RunConfig, source: Source, saved: Checkpoint | None, stack: ExitStack
) -> tuple[Sink, ErrorsFile | None]:
    """The output and the quarantine file, behind what an earlier run had committed."""
    committed = saved.output if saved else None
    sink = open_sink(
        config.output, columns=source.columns, stdout=config.stdout, shape=source.shape, committed=committed
    )
    stack.callback(sink.abandon)
    if not config.errors:
        return sink, None
    quarantine = ErrorsFile(config.errors, config.input.paths, keep=saved.quarantine if saved else 0)
    stack.callback(quarantine.close)
    return sink, quarantine


def _recorded(saved: Checkpoint | None) -> int | None:
    """The chunk size of an earlier run: boundaries must not move because a run goes on on another device."""
    return saved.fingerprint["chunk pairs"] if saved else None


def _stream(
    chunks: Iterable[Chunk], slice_pairs: int, session: Session, ledger: Ledger, tally: Tally, stop: Stop
) -> bool:
    """Read, tokenize, score and write side by side; True when the input was worked off to its end.

    However it ends, what was written is committed, unless writing itself has failed.
    """
    writer = Behind[Scored](ledger.take)
    cut_ahead = Ahead(chunks)
    slices = Ahead(prepare_slices(cut_ahead, session, slice_pairs, tally), until=stop)
    try:
        for scored in _score(slices, session, tally, lambda: stop() or writer.failed):
            writer.put(scored)
    except StopRequested:
        pass
    finally:
        slices.close()
        cut_ahead.close()
        writer.close()
        ledger.commit()
    return slices.exhausted


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
            yield join(done, logits)
            done, logits = [], []


def _announce(name: str) -> None:
    os.write(2, f"rerank: {name}, finishing the row at hand (again to quit at once)\n".encode())
