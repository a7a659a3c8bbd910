"""A whole run: open input and output, load the model, stream chunks through it, commit them, publish the output.

Order of commits: output bytes, then their fsync, then the checkpoint. Nothing stands under the final name before
everything is written; the same run begun again goes on behind the last commit and writes the same bytes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from rerank_cli.choices import ProgressMode, Resume
from rerank_cli.engine.contract import Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import RefusedError, RerankError
from rerank_cli.evaluation.evaluate import Evaluation
from rerank_cli.evaluation.same_pass import LoadedQrels, SamePassEvaluation
from rerank_cli.formats import ErrorsFile, Sink, Source, input_files, open_sink, open_source, refuse_existing
from rerank_cli.ranking import demanding
from rerank_cli.records import Record
from rerank_cli.run.checks import check, check_shape
from rerank_cli.run.chunks import InputHash, cut
from rerank_cli.run.committer import Committer, Entry
from rerank_cli.run.options import RunConfig
from rerank_cli.run.pipeline import stream
from rerank_cli.run.progress import say, showing, snapshot
from rerank_cli.run.record_guards import after, guarded, look_ahead
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.recovery.fingerprint import Fingerprint, fingerprint, settings
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.recovery.receipt import complete, identity, receipt, sign
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.wrappers import ScoringWrappers
from rerank_cli.run.signals import Stop, die_of, listening
from rerank_cli.run.stages import rank_chunk
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.summary import Summary, write_summary
from rerank_cli.run.verify import Sample, Verdict

OpenModel = Callable[[ModelOptions], Session | Workers]
RevisionOf = Callable[[ModelOptions], str]


def run(config: RunConfig, open_model: OpenModel, revision_of: RevisionOf | None = None) -> tuple[Summary, Stop]:
    """Do the job, or what an earlier run left of it; one that is complete already is told by `revision_of` a model.

    The caller ends the process by `Stop.signal` if there is one. Raises RerankError subclasses with one line for a
    person, and BrokenPipeError when the reader of stdout has gone.
    """
    check(config)
    job = _Job(config, open_model, revision_of)
    try:
        with ExitStack() as stack:
            status = partial(say, job.stats, ProgressMode.PLAIN)
            stack.enter_context(listening(job.stop, _announce, status, job.let_go))
            job.hold(stack)
            job.work(stack)
    except RerankError as error:
        if job.stats.chunks and job.place.keeps:
            config.notify(f"{job.stats.records:,} records are kept; once this is mended, the same command goes on")
        if config.summary:
            write_summary(Summary(job.stats, failure=str(error)), config.summary)
        raise
    summary = job.summary()
    if config.summary and not summary.nothing_to_do:
        write_summary(summary, config.summary)
    return summary, job.stop


class _Job:
    """One run from its beginning to its end; what is open is left to the stack."""

    def __init__(self, config: RunConfig, open_model: OpenModel, revision_of: RevisionOf | None) -> None:
        self.config = config
        self.stats = RunStatistics()
        self.stop = Stop(config.max_duration)
        self.place = OutputState.of(config.output.path, config.checkpoint)
        self._open_model = open_model
        self._revision_of = revision_of
        self._session: Session | Workers | None = None
        self._point: Checkpoint | None = None
        self._verdict: Verdict | None = None
        self._shortcuts: ScoringWrappers | None = None
        self._evaluation: Evaluation | None = None
        self._nothing_to_do = False
        self._held = False

    def hold(self, stack: ExitStack) -> None:
        """Keep other runs away from the output; a signal waits until that is done."""
        self.stop.patient = True
        stack.enter_context(self.place.held())
        self._held = True
        self.stop.patient = False
        if self.stop.signal:
            self.let_go()
            die_of(self.stop.signal)

    def let_go(self) -> None:
        """Before the process ends without unwinding: remove the lock, if it is ours."""
        if self._held and self.place.lock:
            self.place.lock.unlink(missing_ok=True)

    def work(self, stack: ExitStack) -> None:
        """Open everything, stream the records through, publish."""
        config, stats = self.config, self.stats
        rejected_before = complete(config, self.place, self._revision_of)
        if rejected_before is not None:
            self._nothing_to_do = True
            stats.rejected = rejected_before
            return
        refuse_existing(config.output)
        saved = self._point = self.place.saved(config.resume)
        judged = self._judged(saved)
        if saved:
            self.place.refuse_another_run(saved, settings(config))
        source = self._open_source(stack)
        records, trace = self._records(source, saved)
        check_shape(config, source.shape)
        shortcuts = self._shortcuts = ScoringWrappers(config, stats, stack)
        stack.enter_context(showing(stats, config.progress, config.progress_interval))
        session = self._session = self._load(stack)
        shortcuts.load(self._open_model)
        chunk_pairs = config.chunk_pairs or _recorded(saved) or session.sizes.chunk_pairs
        mark = fingerprint(config, session.facts, chunk_pairs) | shortcuts.settings
        if saved:
            self.place.refuse_another_run(saved, mark)
        elif config.resume is Resume.NEVER:
            self.place.forget()
        else:
            self.place.begin_anew()
        sink, quarantine = self._open_output(source, saved, stack)
        record = self._recorder(source, mark)
        judging = self._open_judging(judged, saved, stack)
        rank = partial(rank_chunk, top_n=config.top_n, fusion=config.fusion, kind=config.output.answers.scores)
        ledger = Committer(sink, quarantine, stats, record, rank, config.on_error, config.commit_interval, judging)
        stats.scoring_since = time.monotonic()
        self.stop.patient = True
        chunks = cut(records, chunk_pairs, lambda: source.bytes_read, trace)
        journal = Journal(self.place.journal, mark, lambda: ledger.committed)
        if journal.kept:
            config.notify(f"{journal.kept:,} scores of a chunk that was not finished are kept")
        sample = Sample(config.verify) if config.verify else None
        plain = shortcuts.plain(session, journal, stats)
        scoring = shortcuts.around(plain, session.facts, mark, chunk_pairs)
        if stream(chunks, chunk_pairs, scoring, ledger, journal, stats, self.stop, sample):
            if sample and stats.pairs:
                with stats.timing("verify scores"):
                    self._verdict = sample.verify(session, config.verify_tolerance)
            if judging:
                with stats.timing("measure"):
                    self._measure(judging)
            with stats.timing("write"):
                self._publish(sink, source, [session.facts.revision, *shortcuts.revisions])
            stats.finished = True

    def summary(self) -> Summary:
        session = self._session
        interrupted = None if self.stats.finished or self._nothing_to_do else self.stop.reason
        facts, work = (session.facts, session.work) if session else (None, None)
        return Summary(
            self.stats,
            facts,
            work,
            interrupted,
            nothing_to_do=self._nothing_to_do,
            verdict=self._verdict,
            cache=self._shortcuts.cache_use if self._shortcuts else None,
            cascade=self._shortcuts.cascade_use if self._shortcuts else None,
            evaluation=self._evaluation,
        )

    def _open_source(self, stack: ExitStack) -> Source:
        """The input. It is not closed on a request to stop: a thread may hang in a read of it, and the process ends."""
        source = open_source(self.config.input, self.config.notify)
        stack.callback(lambda: None if self.stop() else source.close())
        if self.place.queries:
            source.keep_memory_in(self.place.queries)
        self.stats.total_bytes = source.total_bytes
        self.config.notify(source.description)
        return source

    def _records(self, source: Source, saved: Checkpoint | None) -> tuple[Iterator[Record], InputHash]:
        """The records that are left to do, of which the first few have been read, and the hash of those before."""
        config, stats = self.config, self.stats
        records, trace, left = iter(source), InputHash(), config.limit
        if saved:
            if config.limit is not None:
                left = _left(config.limit, saved.records)
            config.notify(f"going on after {saved.records:,} records")
            with stats.timing("verify"):
                records, trace = after(saved, source, config.output.path)
            stats.go_on_from(saved.counts)
        records = demanding(records, config.fusion, config.on_error)
        records = guarded(itertools.islice(records, left), config.on_error, config.max_errors, stats)
        return look_ahead(records, live=source.total_bytes is None), trace

    def _load(self, stack: ExitStack) -> Session | Workers:
        with self.stats.timing("load"):
            session = self._open_model(self.config.model)
        if isinstance(session, Workers):
            stack.enter_context(session)
        facts = session.facts
        how = "packed rows" if facts.packed else "padded batches"
        how = f"compiled for {how}" if facts.compiled else how
        prompt = "" if facts.profile == "encoder" else f", prompt of profile {facts.profile}"
        if facts.profile_is_guess:
            prompt += " for want of a better one (--profile if the model was trained with another)"
        bits = "" if facts.quantize == "none" else f" and {facts.quantize}"
        place = f"{facts.name} on {facts.device} in {facts.dtype}{bits}"
        self.config.notify(f"{place}, {how} of {facts.batch_tokens} tokens{prompt}")
        return session

    def _open_output(
        self, source: Source, saved: Checkpoint | None, stack: ExitStack
    ) -> tuple[Sink, ErrorsFile | None]:
        """The output and the quarantine file, behind what an earlier run had committed."""
        config = self.config
        committed = saved.output if saved and self.place.partial else None
        sink = open_sink(
            config.output, columns=source.columns, stdout=config.stdout, shape=source.shape, committed=committed
        )
        stack.callback(sink.abandon)
        if not config.errors:
            return sink, None
        quarantine = ErrorsFile(config.errors, input_files(config.input), keep=saved.quarantine if saved else 0)
        stack.callback(quarantine.close)
        return sink, quarantine

    def _judged(self, saved: Checkpoint | None) -> LoadedQrels | None:
        """Measures and judgements, if they are asked for, from the first record on."""
        if self.config.judges is None:
            return None
        if saved and saved.judged is None:
            fix = "Fix: leave it out, rerank eval measures the output; or --restart"
            raise RefusedError(f"{self.config.output.path}: begun without --qrels. {fix}")
        return self.config.judges.ready()

    def _open_judging(
        self, judged: LoadedQrels | None, saved: Checkpoint | None, stack: ExitStack
    ) -> SamePassEvaluation | None:
        """What keeps the orders to be measured, behind what an earlier run had kept."""
        if judged is None:
            return None
        judging = SamePassEvaluation(
            judged, self.place.judged, saved.judged if saved else None, self.config.output.path
        )
        stack.callback(judging.close)
        return judging

    def _measure(self, judging: SamePassEvaluation) -> None:
        self._evaluation, remark = judging.evaluate()
        for said in (remark, self._evaluation.line if self._evaluation else None):
            if said:
                self.config.notify(said)

    def _recorder(self, source: Source, mark: Fingerprint) -> Callable[[Entry], None]:
        """What writes a commit down, once the input's reader has put away what it must remember."""

        def record(entry: Entry) -> None:
            if not self.place.keeps:
                return
            self._point = Checkpoint(
                fingerprint=mark,
                records=self.stats.records,
                reached=entry.reached,
                stamps=source.stamps,
                shape=source.shape,
                memory=source.sync(),
                output=entry.output,
                quarantine=entry.quarantine,
                judged=entry.judged,
                counts=self.stats.counts(),
                progress=snapshot(self.stats),
            )
            self.place.keep(self._point)

        return record

    def _publish(self, sink: Sink, source: Source, revisions: list[str]) -> None:
        """Give the output its name. A kill at any moment leaves what tells the next run how far this one came."""
        whole = sink.finish()
        if whole:
            found = receipt(self.config, revisions, source.stamps)
            if found:
                sign(whole, found, self.stats.rejected)
            if self._point:
                self.place.keep(replace(self._point, sealed=identity(whole), receipt=found))
        sink.publish()
        self.place.forget()


def _recorded(saved: Checkpoint | None) -> int | None:
    """The chunk size of an earlier run: boundaries must not move because a run goes on on another device."""
    return saved.fingerprint["chunk pairs"] if saved else None


def _left(limit: int, done: int) -> int:
    if limit < done:
        raise RefusedError(f"--limit {limit}: {done:,} records are done already. Fix: a larger --limit, or --restart")
    return limit - done


def _announce(name: str) -> None:
    os.write(2, f"rerank: {name}, finishing the row at hand (again to quit at once)\n".encode())
