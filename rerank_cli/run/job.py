"""A complete run: open input and output, load the model, stream chunks through it, commit them, publish the output.

Order of a commit: output bytes, their fsync, then the checkpoint. The final name appears only once everything is
written. The same run started again continues after the last commit and writes the same bytes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from rerank_cli.choices import OnChanged, ProgressMode, Resume, ScoreKind
from rerank_cli.engine.contract import Session, Work
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ChangedError, RefusedError, RerankError
from rerank_cli.evaluation.evaluate import Evaluation
from rerank_cli.evaluation.same_pass import LoadedQrels, SamePassEvaluation
from rerank_cli.formats import ErrorsFile, Source, input_files, open_sink, open_source, refuse_existing
from rerank_cli.ranking import check_first_scores
from rerank_cli.records import Record
from rerank_cli.run.checks import check, check_shape
from rerank_cli.run.chunks import ChunkCutter, InputHash
from rerank_cli.run.committer import Commit, Committer
from rerank_cli.run.metrics import MetricsFile
from rerank_cli.run.options import RunConfig
from rerank_cli.run.pipeline import stream
from rerank_cli.run.progress import noted, say, showing, snapshot
from rerank_cli.run.record_guards import after, guarded
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.recovery.fingerprint import Fingerprint, fingerprint, settings
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.recovery.receipt import attributes, complete, receipt
from rerank_cli.run.scoring.dtype_advice import DtypeAdvice, Watched
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.wrappers import ScoringWrappers
from rerank_cli.run.shard import Shard
from rerank_cli.run.sharding.part import Part, check_noted
from rerank_cli.run.signals import Stop, die_of, listening
from rerank_cli.run.stages import rank_chunk, slice_size
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.summary import Summary, write_summary
from rerank_cli.run.verify import Sample, Verdict
from rerank_cli.storage.outputs import identity
from rerank_cli.storage.paths import STREAM, final_path

OpenModel = Callable[[ModelOptions], Session | Workers]
RevisionOf = Callable[[ModelOptions], str]
_FIRST_LOOK = 32


class Share(Protocol):
    """What a job of several outputs asks of the run of one of them. Called on more than one thread."""

    def check(self) -> None:
        """Raise HeldError if another process has taken the output over; called before its files are changed."""
        ...

    def sealed(self, identity: list[int], receipt: str) -> None:
        """The output of an input without records, of this identity, is about to get its final name."""
        ...

    def published(self, output: Path, stats: RunStatistics, receipt: str | None) -> None:
        """The output has its final name; its checkpoint still exists."""
        ...


def run(
    config: RunConfig,
    open_model: OpenModel,
    revision_of: RevisionOf | None = None,
    *,
    signals: bool = True,
    advice: DtypeAdvice | None = None,
) -> tuple[Summary, Stop]:
    """Run the job, or what an earlier run of the same command left of it.

    `revision_of` gives a model's revision without loading it, to recognise an output that is complete already. With
    `signals` the run handles signals, and the caller ends the process by `Stop.signal` if it is set. `advice` is for a
    run whose dtype nobody chose. Raises RerankError subclasses with a message of one line, and BrokenPipeError if the
    reader of stdout has closed it.
    """
    stop = Stop(config.max_duration)
    return _run(config, open_model, revision_of, stop, signals=signals, advice=advice), stop


def run_part(
    config: RunConfig,
    open_model: OpenModel,
    revision_of: RevisionOf,
    stop: Stop,
    stats: RunStatistics,
    share: Share,
    advice: DtypeAdvice | None = None,
) -> Summary:
    """Run one of several outputs: counts in `stats`, sets no signal handlers, and leaves the models open."""
    return _run(config, open_model, revision_of, stop, stats, share, signals=False, advice=advice)


def _run(
    config: RunConfig,
    open_model: OpenModel,
    revision_of: RevisionOf | None,
    stop: Stop,
    stats: RunStatistics | None = None,
    share: Share | None = None,
    *,
    signals: bool,
    advice: DtypeAdvice | None,
) -> Summary:
    check(config)
    state = OutputState.of(config.output.path, config.checkpoint, config.errors)
    job = _Job(config, open_model, revision_of, stop, state, stats or RunStatistics(), share, advice)
    try:
        with ExitStack() as stack:
            if signals:
                report = partial(say, job.stats, ProgressMode.PLAIN)
                stack.enter_context(listening(stop, announce, report, job.remove_lock))
            job.lock(stack)
            job.work(stack)
    except ChangedError as error:
        if config.on_changed is not OnChanged.RESTART or STREAM in config.input.paths:
            raise
        left = job.checkpoint.records if job.checkpoint else 0
        config.notify(f"{error.what}; starting over, the unfinished output with {left:,} records is discarded")
        again = replace(config, resume=Resume.NEVER)
        job.stats.resume_from({})
        shared = job.stats if share else None
        return _run(again, open_model, revision_of, stop, shared, share, signals=signals, advice=advice)
    except RerankError as error:
        if share is None and job.stats.chunks and job.state.checkpoint and "--restart" not in str(error):
            kept = f"{job.stats.records:,} records are kept"
            config.notify(f"{kept}; fix the problem and run {config.same_command} to resume")
        if job.metrics and job.locked:
            job.metrics.end("failed")
        if config.summary:
            write_summary(Summary(job.stats, failure=str(error)), config.summary)
        raise
    summary = job.summary()
    if job.metrics and not summary.nothing_to_do:
        job.metrics.end(summary.exit_reason)
    if config.summary and not summary.nothing_to_do:
        write_summary(summary, config.summary)
    return summary


@dataclass(slots=True)
class _Job:
    """One run. What it opens is closed by the stack that its methods are given."""

    config: RunConfig
    open_model: OpenModel
    revision_of: RevisionOf | None
    stop: Stop
    state: OutputState
    stats: RunStatistics
    share: Share | None = None
    advice: DtypeAdvice | None = None
    session: Session | Workers | None = None
    wrappers: ScoringWrappers | None = None
    checkpoint: Checkpoint | None = None
    part: Part | None = None
    chunk_pairs: int = 0
    verdict: Verdict | None = None
    evaluation: Evaluation | None = None
    nothing_to_do: bool = False
    locked: bool = False
    work_before: Work = field(default_factory=Work)
    metrics: MetricsFile | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.config.metrics:
            self.metrics = MetricsFile(self.config.metrics, self.config.output.path, self.stats, self.config.notify)

    def lock(self, stack: ExitStack) -> None:
        """Take the output's lock. A signal that arrives meanwhile takes effect afterwards."""
        self.stop.patient = True
        note = stack.enter_context(self.state.held(self.config.notify))
        stack.enter_context(noted(self.stats, note))
        self.locked = True
        self.stop.patient = False
        if self.stop.signal:
            self.remove_lock()
            die_of(self.stop.signal)

    def remove_lock(self) -> None:
        """Remove the lock file if this run holds it: for a process that is about to end without unwinding."""
        if self.locked and self.state.lock:
            self.state.lock.unlink(missing_ok=True)

    def work(self, stack: ExitStack) -> None:
        """Open everything, stream the records through, publish."""
        config, stats, state = self.config, self.stats, self.state
        rejected = complete(config, state, self.revision_of)
        if rejected is not None:
            self.nothing_to_do, stats.rejected = True, rejected
            return
        refuse_existing(config.output)
        saved = self.checkpoint = state.saved(config.resume, config.notify)
        if config.qrels and saved and saved.judged is None:
            fix = "remove --qrels, rerank eval measures the output; or --restart"
            raise ChangedError(f"{config.output.path}: started without --qrels", fix)
        qrels = config.qrels.load() if config.qrels else None
        if saved:
            state.refuse_another_run(saved, settings(config))
        source, records, input_hash = self._open_input(saved, stack)
        check_shape(config, source.shape)
        if records is None:
            self._finish_empty(source, qrels, stack)
            return
        wrappers = self.wrappers = ScoringWrappers(config, stats, stack)
        stack.enter_context(showing(stats, config.progress, config.progress_interval))
        if self.metrics:
            stack.enter_context(self.metrics.kept(config.progress_interval))
        session = self.session = self._load(stack)
        wrappers.load(self.open_model, session.facts, shared=self.share is not None)
        # Chunk boundaries must not change when a run is resumed on another device.
        usual_pairs = saved.fingerprint["chunk pairs"] if saved else session.sizes.chunk_pairs
        chunk_pairs: int = config.chunk_pairs or usual_pairs
        self.chunk_pairs = chunk_pairs
        mark = fingerprint(config, session.facts, chunk_pairs) | wrappers.settings
        if saved:
            state.refuse_another_run(saved, mark)
        elif config.resume is Resume.NEVER:
            state.forget()
        else:
            state.discard()
        committer = self._open_outputs(source, saved, mark, qrels, stack)
        stats.scoring_since = time.monotonic()
        self.stop.patient = True
        journal = Journal(state.journal, mark, lambda: committer.committed)
        bytes_read = partial(self._bytes_read, source)
        chunks = ChunkCutter(records, chunk_pairs, bytes_read, input_hash, journal.ends_at, stats.bytes_done)
        if journal.kept:
            config.notify(f"reusing {journal.kept:,} scores of an unfinished chunk")
        sample = Sample(config.verify, lists=session.facts.listwise) if config.verify else None
        scoring = wrappers.scoring(session, journal, mark, chunk_pairs)
        if self.advice and not config.cascade and not isinstance(session, Workers):
            scoring = self.advice.around(scoring, Watched(config.model, session, stats, self._seconds_left))
        size = slice_size(session.facts, chunk_pairs)
        if stream(chunks, size, scoring, committer, journal, stats, self.stop, sample, source.when_idle):
            if sample and stats.pairs:
                with stats.timing("verify scores"):
                    self.verdict = sample.verify(session, config.verify_tolerance)
            self._finish(committer, source, [session.facts.revision, *wrappers.revisions], mark)

    def _finish_empty(self, source: Source, qrels: LoadedQrels | None, stack: ExitStack) -> None:
        """Publish the output of an input without records. No model is loaded."""
        self.state.forget()
        mark = settings(self.config)
        committer = self._open_outputs(source, None, mark, qrels, stack)
        revisions = [self.revision_of(model) for model in self.config.models] if self.revision_of else []
        self._finish(committer, source, revisions, mark)

    def _finish(self, committer: Committer, source: Source, revisions: Sequence[str], mark: Fingerprint) -> None:
        """Measure, if judgements are given, and publish."""
        if committer.same_pass:
            with self.stats.timing("measure"):
                self.evaluation, remark = committer.same_pass.evaluate(answered=self.config.shard is not None)
            for message in (remark, self.evaluation.line if self.evaluation else None):
                if message:
                    self.config.notify(message)
        with self.stats.timing("write"):
            self._publish(committer, source, revisions, mark)
        self.stats.finished = True

    def summary(self) -> Summary:
        """The statistics so far, and what the parts of the run report."""
        session, wrappers = self.session, self.wrappers
        return Summary(
            self.stats,
            session.facts if session else None,
            session.work.since(self.work_before) if session else None,
            None if self.stats.finished or self.nothing_to_do else self.stop.reason,
            nothing_to_do=self.nothing_to_do,
            verdict=self.verdict,
            cache=wrappers.cache_use if wrappers else None,
            cascade=wrappers.cascade_use if wrappers else None,
            evaluation=self.evaluation,
        )

    def _open_input(
        self, saved: Checkpoint | None, stack: ExitStack
    ) -> tuple[Source, Iterator[Record] | None, InputHash]:
        """The source, the records to process (None if the input has none at all), and the hash of those before.

        After a stop the source is not closed: a thread may block in a read of it, and the process ends soon.
        """
        config, stats = self.config, self.stats
        source = open_source(config.input, config.notify)
        stack.callback(lambda: None if self.stop() else source.close())
        if self.state.queries:
            source.keep_memory_in(self.state.queries)
        stats.total_bytes = source.total_bytes
        config.notify(source.description)
        if config.shard:
            return (source, *self._open_part(config.shard, source, saved))
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
        return source, left if first or saved else None, input_hash

    def _open_part(
        self, shard: Shard, source: Source, saved: Checkpoint | None
    ) -> tuple[Iterator[Record] | None, InputHash]:
        """The records of a shard, and the hash of those before in it; None if the input has no records at all.

        They are not read yet: where a shard begins depends on the number of pairs of a chunk.
        """
        config, stats = self.config, self.stats
        begin, end = shard.share_of(source.total_bytes or 0)
        stats.total_bytes = end - begin
        before = saved.before if saved else source.go_near(begin)
        self.part = part = Part(shard, source.extent, lambda: self.chunk_pairs, before, inside=saved is not None)
        if saved:
            config.notify(f"shard {shard}: resuming after {saved.records:,} of its records")
            with stats.timing("verify"):
                records, input_hash = after(saved, source, config.output.path)
            stats.resume_from(saved.counts)
        else:
            config.notify(f"shard {shard}: reading begins after {before:,} records, scoring where the shard begins")
            first = list(itertools.islice(records := iter(source), 1))
            if not first:
                return None, InputHash()
            records, input_hash = itertools.chain(first, records), InputHash()
        records = check_first_scores(part.of(records), config.fusion, config.on_error)
        return guarded(records, config.on_error, config.max_errors, stats), input_hash

    def _bytes_read(self, source: Source) -> int:
        """Bytes on disk read so far; of a shard, those of its part."""
        if not self.config.shard:
            return source.bytes_read
        begin, end = self.config.shard.share_of(source.total_bytes or 0)
        return min(max(0, source.bytes_read - begin), end - begin)

    def _seconds_left(self) -> float | None:
        """The time that the run will still take, by its progress and what limits it; None if that is not known."""
        stats, limit, until = self.stats, self.config.limit, self.stop.seconds_left
        bounds = [] if stats.eta_seconds is None else [stats.eta_seconds]
        if limit is not None and (done := stats.records - stats.resumed_records):
            bounds.append(stats.scoring * (limit - stats.records) / done)
        return min([*bounds, *([] if until is None else [until])]) if bounds else None

    def _load(self, stack: ExitStack) -> Session | Workers:
        with self.stats.timing("load"):
            session = self.open_model(self.config.model)
        if isinstance(session, Workers) and self.share is None:
            stack.enter_context(session)
        if isinstance(session, Workers):
            self.stats.workers = session.shown
        self.work_before = replace(session.work)
        facts = session.facts
        quantized = "" if facts.quantize == "none" else f" and {facts.quantize}"
        rows = ("compiled for " if facts.compiled else "") + ("packed rows" if facts.packed else "padded batches")
        prompt = "" if facts.profile == "encoder" else f", prompt of profile {facts.profile}"
        guess = " (a guess, --profile selects another)" if facts.profile_is_guess else ""
        place = f"{facts.name} on {facts.device} in {facts.dtype}{quantized}"
        rows = f"{rows} of {facts.batch_tokens} tokens"
        if facts.listwise:
            rows = "whole lists: a score depends on the other passages of its query and on their order"
        self.config.notify(f"{place}, {rows}{prompt}{guess}")
        for remark in facts.remarks:
            self.config.notify(f"{facts.name}: {remark}")
        if facts.scores == ScoreKind.RAW and self.config.output.answers.scores is ScoreKind.AUTO:
            what = "cosines, −1 to 1" if facts.listwise else "logits, as its files state"
            self.config.notify(f"{facts.name}: scores are {what} (--scores sigmoid: 0 to 1)")
        return session

    def _open_outputs(
        self, source: Source, saved: Checkpoint | None, mark: Fingerprint, qrels: LoadedQrels | None, stack: ExitStack
    ) -> Committer:
        """Open the output, the errors file and the rankings to evaluate, each after what `saved` says is committed."""
        config, output, state = self.config, self.config.output, self.state
        if output.answers.scores is ScoreKind.AUTO:
            kind = ScoreKind(self.session.facts.scores) if self.session else ScoreKind.SIGMOID
            output = replace(output, answers=replace(output.answers, scores=kind))
        committed = saved.output if saved and state.partial else None
        sink = open_sink(output, columns=source.columns, stdout=config.stdout, shape=source.shape, committed=committed)
        stack.callback(sink.abandon)
        quarantine = same_pass = None
        if config.errors:
            quarantine = ErrorsFile(config.errors, input_files(config.input), keep=saved.quarantine if saved else 0)
            stack.callback(quarantine.close)
        if qrels:
            same_pass = SamePassEvaluation(qrels, state.judged, saved.judged if saved else None, output)
            stack.callback(same_pass.close)
        rank = partial(rank_chunk, top_n=config.top_n, fusion=config.fusion, kind=output.answers.scores)
        record = partial(self._record, source, mark)
        interval = config.commit_interval if config.commit_interval is not None else state.patience
        committer = Committer(sink, quarantine, self.stats, record, rank, config.on_error, interval, same_pass)
        if self.share:
            committer.may_write = self.share.check
        return committer

    def _record(self, source: Source, mark: Fingerprint, commit: Commit) -> None:
        """Save the checkpoint of a commit, after `source.sync` has made the reader's query log durable."""
        if self.state.checkpoint is None:
            return
        if self.share:
            self.share.check()
        self.checkpoint = Checkpoint(
            fingerprint=mark,
            records=self.stats.records,
            reached=commit.reached,
            stamps=source.stamps,
            shape=source.shape,
            memory=source.sync(),
            output=commit.output,
            quarantine=commit.quarantine,
            judged=commit.judged,
            counts=self.stats.counts(),
            progress=snapshot(self.stats) | {"workers": []},
            before=self.part.before if self.part else 0,
        )
        self.state.save(self.checkpoint)

    def _publish(self, committer: Committer, source: Source, revisions: Sequence[str], mark: Fingerprint) -> None:
        """Rename the output to its final name. After a kill at any point the next run finds how far this one came."""
        found = receipt(self.config, revisions, source.stamps)
        if self.share:
            self.share.check()
        finished = committer.sink.finish()
        if committer.quarantine:
            committer.quarantine.publish()
        if finished and self.checkpoint:
            self.state.save(replace(self.checkpoint, sealed=identity(finished), receipt=found))
        marks: dict[str, str] = {}
        if finished:
            size, figures = finished.stat().st_size, self.summary().record()
            marks = attributes(found, self.stats.rejected, size, figures, self.config.command[:1500])
            if self.part:
                marks = self.part.note(size, self.config, self.stats, mark, revisions, source.stamps) | marks
        if finished and found and not self.checkpoint and self.share:
            self.share.sealed(identity(finished), found)
        committer.sink.publish(marks)
        if self.part:
            check_noted(self.config)
        if self.share:
            self.share.published(final_path(self.config.output.path), self.stats, found)
        self.state.forget()


def announce(name: str) -> None:
    os.write(2, f"rerank: {name}, finishing the current row (again to quit at once)\n".encode())
