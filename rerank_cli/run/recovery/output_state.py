"""Files that accompany an unfinished output: lock, checkpoint, journal and partial data, placed beside it.

A stream or a device has none of them unless `--checkpoint` names a file. Those of an output in a bucket are in a local
folder (`storage/staging.py`); with a checkpoint in a bucket, they are there too (`remote_checkpoint`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rerank_cli.choices import Resume
from rerank_cli.display import shown
from rerank_cli.errors import ChangedError, RefusedError, RerankError
from rerank_cli.run.recovery import checkpoint
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.recovery.fingerprint import Fingerprint, differences
from rerank_cli.run.recovery.lease import Lease
from rerank_cli.run.recovery.remote_checkpoint import PATIENCE, Mirrored, RemoteCheckpoint
from rerank_cli.storage.lock import locked
from rerank_cli.storage.paths import final_path, is_special, partial_of, successor_of
from rerank_cli.storage.remote import is_remote
from rerank_cli.storage.staging import tidy


@dataclass(frozen=True, slots=True)
class OutputState:
    """Paths around an output; each is None where the output has no such file.

    `queries` is the query log of the input's reader, `journal` has scores of unfinished chunks, `judged` the rankings
    to evaluate, `errors` the local file of an errors file in a bucket. `lease` is the lock of what is in a bucket,
    `remote` the checkpoint there.
    """

    output: str
    partial: Path | None
    checkpoint: Path | None
    lock: Path | None
    queries: Path | None
    journal: Path | None
    judged: Path | None
    errors: Path | None = None
    lease: Lease | None = None
    remote: RemoteCheckpoint | None = None

    @classmethod
    def of(cls, output: str, checkpoint: str | None = None, errors: str | None = None) -> OutputState:
        partial = partial_of(output)
        own = _local(checkpoint) if checkpoint else None
        beside = partial.with_suffix("") if partial else None
        kept = own or _add(beside, ".checkpoint")
        queries, journal, judged = (_add(own or beside, suffix) for suffix in (".queries", ".journal", ".judged"))
        leased = next((path for path in (output, checkpoint) if path and is_remote(path)), None)
        remote = None
        if checkpoint and is_remote(checkpoint) and kept:
            named = Path(final_path(errors)) if errors and not is_special(errors) else None
            remote = RemoteCheckpoint(checkpoint, kept, list(_mirrored(partial, named, queries, judged)))
        return cls(
            output,
            partial,
            kept,
            _add(beside or own, ".lock"),
            queries,
            journal,
            judged,
            final_path(errors) if errors and is_remote(errors) else None,
            Lease(f"{leased}.lock", shown(output, 300)) if leased else None,
            remote,
        )

    @property
    def patience(self) -> float | None:
        """Seconds between commits, None for what suits the output."""
        return PATIENCE if self.remote else None

    @contextmanager
    def held(self, notify: Callable[[str], None] = lambda _: None) -> Iterator[Callable[[str], None] | None]:
        """Hold the output's locks, if it has any; gives what sets their note, for `rerank status`.

        Raises RefusedError if another process holds one of them.
        """
        with ExitStack() as stack:
            if self.lease:
                for path in filter(is_remote, (self.output, *([self.remote.path] if self.remote else []))):
                    stack.callback(tidy, path)
            notes = [stack.enter_context(locked(self.lock, shown(self.output, 300)))] if self.lock else []
            if self.lease:
                stack.enter_context(self.lease.held(notify))
                notes.append(self.lease.set_note)

            def note_all(text: str) -> None:
                for note in notes:
                    note(text)

            yield note_all if notes else None

    def saved(self, resume: Resume, notify: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
        """The checkpoint to resume from, if there is one. Raises RefusedError if `--resume require` finds none."""
        found = None
        if resume is not Resume.NEVER:
            if self.remote and self.remote.restore():
                notify(f"{self.remote.path}: fetched what an earlier run left there")
            if self.checkpoint and (self.partial is None or self.partial.exists()):
                found = checkpoint.load(self.checkpoint)
        if found is None and resume is Resume.REQUIRE:
            fix = "--resume auto" if self.checkpoint else "--checkpoint FILE"
            raise RefusedError(f"{self.output}: there is no checkpoint to resume from. Fix: {fix}")
        return found

    def save(self, now: Checkpoint) -> None:
        """Make a checkpoint durable. Raises OutputError, and RefusedError if another process took over."""
        if self.lease:
            self.lease.check()
        if self.checkpoint:
            checkpoint.save(now, self.checkpoint)
        if self.remote:
            self.remote.commit(now)

    def sealed(self) -> Checkpoint | None:
        """The checkpoint of a run that was killed between finishing its output and removing its other files."""
        found = None
        with suppress(RerankError):
            if self.checkpoint and self.partial:
                found = checkpoint.load(self.checkpoint)
            if self.remote and not (found and found.sealed):
                found = self.remote.found
        return found if found and found.sealed else None

    def refuse_unfinished(self) -> None:
        """Raise RefusedError if an unfinished run writes to this output."""
        if self.checkpoint and self.checkpoint.exists():
            what = f"an unfinished run writes to {shown(self.output, 300)}"
            raise RefusedError(f"{self.checkpoint}: {what}. Fix: another -o")

    def refuse_another_run(self, saved: Checkpoint, now: Fingerprint) -> None:
        """Raise RefusedError with the differences if the checkpoint is of a run with another fingerprint."""
        found = differences(saved.fingerprint, now)
        if found:
            what = f"started with other settings ({'; '.join(found)})"
            raise ChangedError(f"{self.output}: {what}")

    def forget(self) -> None:
        """Remove all files but the lock: the output is complete."""
        for path in filter(None, (self.journal, self.errors)):
            path.unlink(missing_ok=True)
        self.discard()

    def discard(self) -> None:
        """Remove an earlier run's files except its journal, whose entries are checked one by one.

        `judged` is removed after the checkpoint that refers to it, so that a kill leaves no checkpoint without it.
        """
        successor = successor_of(self.checkpoint) if self.checkpoint else None
        for path in filter(None, (self.queries, self.checkpoint, successor, self.judged)):
            path.unlink(missing_ok=True)
        if self.remote:
            self.remote.remove()


def _add(path: Path | None, suffix: str) -> Path | None:
    return path.with_name(path.name + suffix) if path else None


def _local(path: str) -> Path:
    """The local file of a checkpoint, in a bucket or not."""
    return final_path(path) if is_remote(path) else Path(path)


def _mirrored(
    partial: Path | None, errors: Path | None, queries: Path | None, judged: Path | None
) -> Iterator[Mirrored]:
    """The files beside a checkpoint that a run on another machine needs."""
    if partial:
        yield Mirrored("output", partial, lambda now: now.output.length)
    if errors:
        yield Mirrored("errors", errors, lambda now: now.quarantine)
    if queries:
        yield Mirrored("queries", queries, lambda now: now.memory.length if now.memory else 0)
    if judged:
        yield Mirrored("judged", judged, lambda now: now.judged.length if now.judged else 0)
