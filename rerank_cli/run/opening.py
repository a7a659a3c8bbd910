"""Opens the input of a run where an earlier run of it stopped, and its model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from rerank_cli.choices import ScoreKind
from rerank_cli.engine.contract import ModelFacts, Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import RefusedError
from rerank_cli.formats import Source
from rerank_cli.ranking import check_first_scores
from rerank_cli.records import Record
from rerank_cli.run.chunks import InputHash
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.options import RunConfig
from rerank_cli.run.record_guards import after, guarded
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.shard import Shard
from rerank_cli.run.sharding.part import Part

OpenModel = Callable[[ModelOptions], Session | Workers]
_FIRST_LOOK = 32


@dataclass(frozen=True, slots=True)
class OpenedInput:
    """The source, the records to process (None if the input has none at all), and the hash of those before.

    `part` is set in a run of a shard, whose bytes on disk are `begin` to `end`.
    """

    source: Source
    records: Iterator[Record] | None
    hash: InputHash
    part: Part | None = None
    begin: int = 0
    end: int = 0

    def bytes_read(self) -> int:
        """Bytes on disk read so far; of a shard, those of its part."""
        if not self.part:
            return self.source.bytes_read
        return min(max(0, self.source.bytes_read - self.begin), self.end - self.begin)


def open_input(
    config: RunConfig,
    source: Source,
    saved: Checkpoint | None,
    stats: RunStatistics,
    chunk_pairs: Callable[[], int],
) -> OpenedInput:
    """The records of a source after those of the checkpoint. `chunk_pairs` is called when a shard is read."""
    if config.shard:
        return _open_part(config, config.shard, source, saved, stats, chunk_pairs)
    stats.total_bytes = source.total_bytes
    records, input_hash, limit = iter(source), InputHash(), config.limit
    if saved:
        if limit is not None and limit < saved.records:
            what = f"--limit {limit}: {saved.records:,} records are done already"
            raise RefusedError(f"{what}. Fix: a larger --limit, or --restart")
        limit = None if limit is None else limit - saved.records
        config.notify(f"resuming after {saved.records:,} records")
        with stats.timing("verify"):
            records, input_hash = after(saved, source, config.output.path)
        stats.resume_from(saved.counts)
    records = check_first_scores(records, config.fusion, config.on_error)
    records = guarded(itertools.islice(records, limit), config.on_error, config.max_errors, stats)
    # A bad record among the first is reported before the model is loaded. Only one of stdin, which may be slow.
    first = list(itertools.islice(records, 1 if source.total_bytes is None else _FIRST_LOOK))
    left = itertools.chain(first, records)
    return OpenedInput(source, left if first or saved else None, input_hash)


def _open_part(
    config: RunConfig,
    shard: Shard,
    source: Source,
    saved: Checkpoint | None,
    stats: RunStatistics,
    chunk_pairs: Callable[[], int],
) -> OpenedInput:
    """The records of a shard. They are not read yet: where it begins depends on the number of pairs of a chunk."""
    begin, end = shard.share_of(source.total_bytes or 0)
    stats.total_bytes = end - begin
    before = saved.before if saved else source.go_near(begin)
    part = Part(shard, source.extent, chunk_pairs, before, inside=saved is not None)
    input_hash = InputHash()
    if saved:
        config.notify(f"shard {shard}: resuming after {saved.records:,} of its records")
        with stats.timing("verify"):
            records, input_hash = after(saved, source, config.output.path)
        stats.resume_from(saved.counts)
    else:
        config.notify(f"shard {shard}: reading begins after {before:,} records, scoring where the shard begins")
        first = list(itertools.islice(records := iter(source), 1))
        if not first:
            return OpenedInput(source, None, input_hash, part, begin, end)
        records = itertools.chain(first, records)
    records = check_first_scores(part.of(records), config.fusion, config.on_error)
    records = guarded(records, config.on_error, config.max_errors, stats)
    return OpenedInput(source, records, input_hash, part, begin, end)


def load_model(
    config: RunConfig, open_model: OpenModel, stats: RunStatistics, stack: ExitStack | None
) -> Session | Workers:
    """The model or the workers of a run, announced to the user. Workers are closed by `stack`, if it is given."""
    with stats.timing("load"):
        session = open_model(config.model)
    if isinstance(session, Workers):
        stats.workers = session.shown
        if stack:
            stack.enter_context(session)
    for line in _told(session.facts, config.output.answers.scores):
        config.notify(line)
    return session


def _told(facts: ModelFacts, scores: ScoreKind) -> Iterator[str]:
    """What a run says of its model."""
    quantized = "" if facts.quantize == "none" else f" and {facts.quantize}"
    rows = ("compiled for " if facts.compiled else "") + ("packed rows" if facts.packed else "padded batches")
    prompt = "" if facts.profile == "encoder" else f", prompt of profile {facts.profile}"
    guess = " (a guess, --profile selects another)" if facts.profile_is_guess else ""
    rows = f"{rows} of {facts.batch_tokens} tokens"
    if facts.listwise:
        rows = "whole lists: a score depends on the other passages of its query and on their order"
    yield f"{facts.name} on {facts.device} in {facts.dtype}{quantized}, {rows}{prompt}{guess}"
    for remark in facts.remarks:
        yield f"{facts.name}: {remark}"
    if facts.scores == ScoreKind.RAW and scores is ScoreKind.AUTO:
        what = "cosines, −1 to 1" if facts.listwise else "logits, as its files state"
        yield f"{facts.name}: scores are {what} (--scores sigmoid: 0 to 1)"
