"""One output: its lock, its input, its model, the stream of chunks through it, and its publication.

Order of a commit: output bytes, their fsync, then the checkpoint. The final name appears only once everything is
written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from rerank_cli.choices import Resume, ScoreKind
from rerank_cli.engine.contract import Session, Work
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ChangedError
from rerank_cli.evaluation.evaluate import Evaluation
from rerank_cli.evaluation.same_pass import LoadedQrels, SamePassEvaluation
from rerank_cli.formats import ErrorsFile, Source, input_files, open_sink, open_source, refuse_existing
from rerank_cli.run.checks import check_shape
from rerank_cli.run.chunks import ChunkCutter
from rerank_cli.run.committer import Commit, Committer
from rerank_cli.run.figures.metrics import MetricsFile
from rerank_cli.run.figures.progress import noted, showing, snapshot
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.opening import OpenModel, load_model, open_input
from rerank_cli.run.options import RunConfig
from rerank_cli.run.pipeline import stream
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.recovery.fingerprint import Fingerprint, fingerprint, settings
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.recovery.receipt import attributes, complete, receipt
from rerank_cli.run.scoring.dtype_advice import DtypeAdvice, Watched
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.wrappers import ScoringWrappers
from rerank_cli.run.sharding.part import Part, check_noted
from rerank_cli.run.signals import Stop, die_of
from rerank_cli.run.stages import rank_chunk, slice_size
from rerank_cli.run.summary import Summary
from rerank_cli.run.verify import Sample, Verdict
from rerank_cli.storage.outputs import identity
from rerank_cli.storage.paths import final_path

RevisionOf = Callable[[ModelOptions], str]


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


@dataclass(slots=True)
class Job:
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
        opened = open_input(config, self._open_source(stack), saved, stats, lambda: self.chunk_pairs)
        source, self.part = opened.source, opened.part
        check_shape(config, source.shape)
        if opened.records is None:
            self._finish_empty(source, qrels, stack)
            return
        wrappers = self.wrappers = ScoringWrappers(config, stats, stack)
        stack.enter_context(showing(stats, config.progress, config.progress_interval))
        if self.metrics:
            stack.enter_context(self.metrics.kept(config.progress_interval))
        session = self.session = load_model(config, self.open_model, stats, stack if self.share is None else None)
        self.work_before = replace(session.work)
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
        chunks = ChunkCutter(
            opened.records, chunk_pairs, opened.bytes_read, opened.hash, journal.ends_at, stats.bytes_done
        )
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

    def _open_source(self, stack: ExitStack) -> Source:
        """After a stop the source is not closed: a thread may block in a read of it, and the process ends soon."""
        source = open_source(self.config.input, self.config.notify)
        stack.callback(lambda: None if self.stop() else source.close())
        if self.state.queries:
            source.keep_memory_in(self.state.queries)
        self.config.notify(source.description)
        return source

    def _seconds_left(self) -> float | None:
        """The time that the run will still take, by its progress and what limits it; None if that is not known."""
        stats, limit, until = self.stats, self.config.limit, self.stop.seconds_left
        bounds = [] if stats.eta_seconds is None else [stats.eta_seconds]
        if limit is not None and (done := stats.records - stats.resumed_records):
            bounds.append(stats.scoring * (limit - stats.records) / done)
        return min([*bounds, *([] if until is None else [until])]) if bounds else None

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
