"""Records on their way in: begun where an earlier run stopped, held to the rules for bad ones, looked at early."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rerank_cli.choices import OnError
from rerank_cli.errors import InputError, RefusedError
from rerank_cli.formats import Source
from rerank_cli.records import Record, Rejection
from rerank_cli.run.chunks import InputHash
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.statistics import RunStatistics

_FIRST_LOOK = 32


def after(saved: Checkpoint, source: Source, output: str) -> tuple[Iterator[Record], InputHash]:
    """The records behind a checkpoint; RefusedError if those before it are not the ones it was made of.

    Inputs that are by all signs the same are read from the last finished record on, which is compared with what was
    noted of it. Others (a stream, a file that was written to) are read from the beginning, and all records compared.
    """
    reached = saved.reached
    skip, trace = saved.records, InputHash()
    if _go_to(source, saved):
        skip, trace = reached.skip, InputHash(reached.before)
    records = iter(source)
    passed = 0
    for record in itertools.islice(records, skip):
        trace.add(record)
        passed += 1
    if (passed, trace.reached().digest) != (skip, reached.digest):
        what = f"the first {saved.records:,} records of the input are not those that are done"
        raise RefusedError(f"{output}: {what}. Fix: --restart, or another -o")
    return records, trace


def _go_to(source: Source, saved: Checkpoint) -> bool:
    """Go to the last finished record, if the inputs up to there are what they were by size, time and first bytes."""
    place = saved.reached.place
    if place is None:
        return False
    files = slice(place.file + 1)
    before, now = list(saved.stamps[files]), list(source.stamps[files])
    if before != now or None in before:
        return False
    return source.go_to(place, saved.records - saved.reached.skip, saved.shape, saved.memory)


def guarded(
    records: Iterator[Record], on_error: OnError, max_errors: int | None, stats: RunStatistics
) -> Iterator[Record]:
    """Hold bad records to `--on-error` and `--max-errors` as they are read; those of an earlier run count."""
    bad = stats.rejected
    while True:
        with stats.timing("read"):
            record = next(records, None)
        if record is None:
            return
        if isinstance(record, Rejection):
            bad += 1
            if on_error is OnError.FAIL:
                raise InputError(_with_fix(record))
            if max_errors is not None and bad > max_errors:
                raise InputError(f"{record} (bad record number {bad}, more than --max-errors {max_errors})")
        yield record


def look_ahead(records: Iterator[Record], *, live: bool) -> Iterator[Record]:
    """Read the first few records now, so that a bad one shows before a model is loaded.

    Of a `live` input, which may come slowly, only the first.
    """
    first = list(itertools.islice(records, 1 if live else _FIRST_LOOK))
    return itertools.chain(first, records)


def _with_fix(rejection: Rejection) -> str:
    """The message with a way out; some reasons name their own."""
    message = str(rejection)
    return message if "Fix: " in message else f"{message}. Fix: --on-error skip, or emit"
