"""The work of one process on a job with an output folder: join, take files that nobody has, do them, finish the job.

Large files come first, and within a class of sizes each process has an order of its own, so that processes seldom try
the same file. A process that finds no free file waits for those that others are doing: it takes them over if their
processes die, and the last one writes the manifest and `_SUCCESS`.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rerank_cli.display import counted
from rerank_cli.errors import HeldError, InputError, RefusedError, RerankError
from rerank_cli.run.figures.progress import snapshot
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.folders.begin import begin, folder_settings
from rerank_cli.run.folders.checks import run_config
from rerank_cli.run.folders.done import Finished
from rerank_cli.run.folders.figures import FolderStatistics, FolderSummary
from rerank_cli.run.folders.inputs import Item, absolute, find_items
from rerank_cli.run.folders.models import AnotherModelError, SharedModels
from rerank_cli.run.folders.state import Failure, FolderState, Record
from rerank_cli.run.job import run_part
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.scoring.dtype_advice import DtypeAdvice
from rerank_cli.run.signals import Stop
from rerank_cli.run.work import RevisionOf
from rerank_cli.storage.files import writing
from rerank_cli.storage.lease import Lease, Worker
from rerank_cli.storage.paths import partial_path, successor_of

_FOLDER = "."  # the lease for what concerns the whole folder; no output has this name
_PATIENCE = (0.05, 2.0)  # seconds between two looks at files that others are doing: at first, and at most


@dataclass(slots=True)
class _Share:
    """The run of one file: see `job.Share`."""

    item: Item
    lease: Lease
    finished: Finished
    record: Record | None = None

    def check(self) -> None:
        self.lease.check()

    def sealed(self, identity: list[int], receipt: str) -> None:
        self.finished.state.seal(self.item.output, identity, receipt)

    def published(self, output: Path, stats: RunStatistics, receipt: str | None) -> None:
        if receipt is None:
            raise InputError(f"{self.item.input}: is not a regular file")
        counts = {"records": stats.records, "pairs": stats.pairs, "rejected": stats.rejected}
        self.record = self.finished.write(self.item, output, counts, receipt)


@dataclass(slots=True)
class Work:
    """What a process does; `items` are the files of the job as last found, `failures` those that cannot be done."""

    config: RunConfig
    revision_of: RevisionOf
    stop: Stop
    state: FolderState
    worker: Worker
    advice: DtypeAdvice | None = None
    models: SharedModels = field(init=False)
    finished: Finished = field(init=False)
    stats: FolderStatistics = field(default_factory=FolderStatistics)
    items: list[Item] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    nothing_to_do: bool = False
    since: float = 0.0
    _current: str | None = None
    _lease: Lease | None = None
    _told: set[str] = field(default_factory=set)
    _revisions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.finished = Finished(self.config, self.state, self.revisions)
        self.worker.note = self.note

    def revisions(self) -> list[str]:
        if not self._revisions:
            self._revisions = [self.revision_of(model) for model in self.config.models]
        return self._revisions

    def note(self) -> dict[str, Any]:
        """What this process tells the others: the output it works on, and its progress."""
        current = self.stats.current
        return {"output": self._current, "file": snapshot(current) if current else None, **snapshot(self.stats)}

    def leave(self) -> None:
        """For a process that is about to end without unwinding."""
        if self._current:
            lock = OutputState.of(str(self.state.path / self._current)).lock
            if lock:
                lock.unlink(missing_ok=True)
        if self._lease:
            self._lease.give_back()

    def work(self) -> None:
        """Until the job is finished, or only files are left that cannot be done. Raises the error of the first."""
        self.since = self.state.own.now()
        if self._join():
            return
        patience = _PATIENCE[0]
        while not self.stop():
            self.items = find_items(self.config)
            left = self._left()
            if not left:
                if self._finish():
                    return
                continue
            self.failures = self.state.failures(self.since)
            free = [item for item in left if item.output not in self.failures]
            if not free:
                raise self._error()
            if self._pass(free):
                patience = _PATIENCE[0]
            elif not self.stop():
                self._tell(f"waiting for {counted(len(free), 'file')} that other processes are doing")
                self._rest(patience)
                patience = min(2 * patience, _PATIENCE[1])

    def _join(self) -> bool:
        """Begin; True if the job is complete."""
        config, state = self.config, self.state
        mark = folder_settings(config, self.revisions())
        with self._whole_folder() as held:
            if not held:
                return False
            new = begin(config, mark, state, self.items, self.worker)
            if state.is_complete and not self._left():
                state.tidy()
                self.nothing_to_do = True
                return True
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            job = {"settings": mark, "command": config.command, "started": now} if new else state.job() or {}
            inputs = list(dict.fromkeys([*job.get("inputs", []), *config.input.paths]))
            paths = {"inputs": inputs, "paths": absolute(inputs), "format": config.output.format.value}
            state.begin(job | paths)
        self.config.notify(f"{counted(len(self.items), 'file')} in {config.output.path}, {len(self._left()):,} to do")
        return False

    def _left(self) -> list[Item]:
        """The items that are not done."""
        records = self.state.records()
        left = [item for item in self.items if not self._is_done(item, records.get(item.output))]
        names = {item.output for item in left}
        self.stats.look(self.items, (item for item in self.items if item.output not in names))
        return left

    def _is_done(self, item: Item, record: Record | None) -> bool:
        return record is not None and self.finished.is_done(item, record, self._plan(item))

    def _plan(self, item: Item) -> RunConfig:
        return run_config(self.config, item, self._notifier(item))

    def _pass(self, free: list[Item]) -> bool:
        """Do what nobody does; whether that was anything."""
        some = False
        for item in sorted(free, key=self._turn):
            if self.stop():
                break
            try:
                self._lease = self.worker.hold(item.output)
            except HeldError:
                continue
            try:
                some = self._take(item, self._lease) or some
            finally:
                self._lease.give_back()
                self._lease = None
        return some

    def _turn(self, item: Item) -> tuple[int, bytes]:
        """Large files first; files of about one size in an order that differs by process."""
        name = f"{self.worker.token} {item.output}".encode("utf-8", "surrogateescape")
        return -item.size.bit_length(), hashlib.blake2b(name, digest_size=8).digest()

    def _take(self, item: Item, lease: Lease) -> bool:
        """Do an item whose lease is held; whether it is done now, or found to be impossible."""
        self._current = item.output
        self.worker.renew()
        done = False
        try:
            done = self._do(item, lease)
        except HeldError:
            self.models.after_failure()
            return False
        except AnotherModelError:
            raise
        except (InputError, RefusedError) as error:
            self.models.after_failure()
            failure = Failure(item.output, str(error), error.exit_code)
            self.state.fail(failure)
            self.failures[item.output] = failure
            self.config.notify(f"{error}; the other files go on")
        finally:
            self._current = None
            self.stats.end(done)
        return done or item.output in self.failures

    def _do(self, item: Item, lease: Lease) -> bool:
        plan = self._plan(item)
        record = self.state.record(item.output)
        if self._is_done(item, record):
            return True
        for path in filter(None, (plan.output.path, plan.errors)):
            with writing(path):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
        if self.finished.adopt(item, plan):
            return True
        if record and self.finished.may_replace(item, record):
            plan = replace(plan, output=replace(plan.output, overwrite=True))
        if lease.suspect:
            _detach(plan)
        share = _Share(item, lease, self.finished)
        stats = self.stats.begin(item)
        summary = run_part(plan, self.models, self.revision_of, self.stop, stats, share, self.advice)
        if share.record:
            self.config.notify(f"{item.output}: {summary.line()}")
        return share.record is not None

    def _finish(self) -> bool:
        """Write the manifest and `_SUCCESS`, if really all is done; whether it is."""
        with self._whole_folder() as held:
            if not held:
                return False
            self.items = find_items(self.config)
            if self._left():
                return False
            state, manifest = self.state, self.state.manifest()
            self.worker.clear()
            state.sweep({item.output for item in self.items})
            records = state.records()
            files = [asdict(records[name]) for name in sorted(records) if state.folder.entry(name)]
            if state.is_complete and manifest and manifest["files"] == files:
                state.tidy()
                return True
            job = state.job() or {}
            totals = {name: sum(file[name] for file in files) for name in ("records", "pairs", "rejected", "bytes")}
            model = state.model or (manifest or {}).get("model")
            mark = job.get("settings") or folder_settings(self.config, self.revisions())
            written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            about = {
                "written": written,
                "command": job.get("command") or self.config.command,
                "settings": mark,
                "model": model,
            }
            state.finish({**about, "totals": totals, "files": files})
        return True

    @contextmanager
    def _whole_folder(self) -> Iterator[bool]:
        """Hold the lease of the folder; False if this process is to stop."""
        while True:
            if self.stop():
                yield False
                return
            try:
                lease = self._lease = self.worker.hold(_FOLDER)
                break
            except HeldError:
                self._rest(_PATIENCE[0])
        try:
            yield True
        finally:
            self._lease = None
            lease.give_back()

    def _rest(self, seconds: float) -> None:
        left = self.stop.seconds_left
        self.stop.patient = False  # nothing is in hand: a signal may end the process at once
        time.sleep(seconds if left is None else min(seconds, left))

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self.config.notify(message)

    def _notifier(self, item: Item) -> Callable[[str], None]:
        """Messages of the run of a file, with its name; what was said of another file already is not repeated."""

        def notify(message: str) -> None:
            if message not in self._told:
                self._told.add(message)
                self.config.notify(f"{item.output}: {message}")

        return notify

    def _error(self) -> RerankError:
        """The error of a job some of whose files cannot be done."""
        failed = sorted(self.failures.values(), key=lambda found: found.output)
        code = InputError.exit_code if any(found.exit_code == InputError.exit_code for found in failed) else None
        first = next(found for found in failed if code in (None, found.exit_code))
        kind = InputError if code else RefusedError
        more = f" (and {len(failed) - 1:,} more, see rerank status)" if len(failed) > 1 else ""
        done = f"{len(self.items) - len(failed):,} of {counted(len(self.items), 'file')} done"
        return kind(f"{self.config.output.path}: {done}, {len(failed):,} failed: {first.message}{more}")

    def summary(self, failure: str | None = None) -> FolderSummary:
        names = {item.output for item in self.items}
        done: tuple[Record, ...] = ()
        if self.state.path.is_dir():
            found = self.state.records()
            done = tuple(found[name] for name in sorted(names & found.keys()))
        failed = tuple(found for _, found in sorted(self.failures.items()))
        interrupted = None if failure or len(done) == len(names) else self.stop.reason
        return FolderSummary(
            self.config.output.path, self.stats, len(names), done, failed, interrupted, failure, self.nothing_to_do
        )


def _detach(plan: RunConfig) -> None:
    """Replace the files of an unfinished output by copies: a process that was taken over may have them open still."""
    files = OutputState.of(plan.output.path)
    errors = Path(plan.errors) if plan.errors else None
    partial = partial_path(plan.output.path)
    parts = sorted(partial.iterdir()) if partial.is_dir() else [partial]
    for path in filter(None, (*parts, files.journal, files.queries, errors)):
        with writing(str(path)):
            if path.is_file():
                copy = successor_of(path)
                shutil.copyfile(path, copy)
                copy.replace(path)
