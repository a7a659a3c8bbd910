"""Records between the source and the chunks: resumed after a checkpoint, and checked for bad ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rerank_cli.choices import OnError
from rerank_cli.errors import ChangedError, InputError
from rerank_cli.formats import Source
from rerank_cli.records import Record, Rejection
from rerank_cli.run.chunks import InputHash
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.recovery.checkpoint import Checkpoint


def after(saved: Checkpoint, source: Source, output: str) -> tuple[Iterator[Record], InputHash]:
    """The records after a checkpoint, and the hash of those before. ChangedError if those before have changed.

    If the input files so far have the same stamps, reading starts at the last processed record, and only that one is
    compared. Otherwise (a stream, a changed file) all processed records are read and compared.
    """
    reached, place, earlier = saved.reached, saved.reached.place, saved.before
    skip, input_hash = saved.records, InputHash()
    if place is not None:
        stamps = list(source.stamps[: place.file + 1])
        same = None not in stamps and stamps == list(saved.stamps[: place.file + 1])
        if same and source.go_to(place, earlier + saved.records - reached.skip, saved.shape, saved.memory):
            skip, input_hash, earlier = reached.skip, InputHash(reached.before), 0
    records = iter(source)
    for _ in itertools.islice(records, earlier):  # records of earlier shards
        pass
    passed = 0
    for record in itertools.islice(records, skip):
        input_hash.add(record)
        passed += 1
    if (passed, input_hash.reached().digest) != (skip, reached.digest):
        what = f"the first {saved.records:,} records of the input are not those already processed"
        raise ChangedError(f"{output}: {what}")
    return records, input_hash


def guarded(
    records: Iterator[Record], on_error: OnError, max_errors: int | None, stats: RunStatistics
) -> Iterator[Record]:
    """Raise InputError for bad records according to `--on-error` and `--max-errors`. Those of earlier runs count."""
    bad = stats.rejected
    for record in stats.waiting("read", records):
        if isinstance(record, Rejection):
            bad += 1
            if on_error is OnError.FAIL:
                fix = "" if "Fix: " in str(record) else ". Fix: --on-error skip, or emit"
                raise InputError(f"{record}{fix}")
            if max_errors is not None and bad > max_errors:
                raise InputError(f"{record} (bad record number {bad}, more than --max-errors {max_errors})")
        yield record
