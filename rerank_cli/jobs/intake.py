"""Records on their way in: held to the rules for bad ones, looked at before the model is loaded, skipped when done."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rerank_cli.errors import InputError, RefusedError
from rerank_cli.jobs.choices import OnError
from rerank_cli.jobs.fingerprint import Trace
from rerank_cli.records import Record, Rejection

if TYPE_CHECKING:
    from rerank_cli.jobs.checkpoint import Checkpoint
    from rerank_cli.jobs.tally import Tally

_FIRST_LOOK = 32


def guarded(records: Iterator[Record], on_error: OnError, max_errors: int | None, tally: Tally) -> Iterator[Record]:
    """Hold bad records to `--on-error` and `--max-errors` as they are read."""
    bad = 0
    while True:
        with tally.timing("read"):
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


def behind(records: Iterator[Record], saved: Checkpoint, trace: Trace, output: str) -> Iterator[Record]:
    """The records after a checkpoint; RefusedError if those before it are not the ones it was made of."""
    done = 0
    for record in itertools.islice(records, saved.records):
        trace.add(record)
        done += 1
    if (done, trace.digest()) != (saved.records, saved.trace):
        what = f"the first {saved.records:,} records of the input are not those that are done"
        raise RefusedError(f"{output}: {what}. Fix: --restart, or another -o")
    yield from records


def _with_fix(rejection: Rejection) -> str:
    """The message with a way out; some reasons name their own."""
    message = str(rejection)
    return message if "Fix: " in message else f"{message}. Fix: --on-error skip, or emit"
