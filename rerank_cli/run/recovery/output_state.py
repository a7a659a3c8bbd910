"""The files around an output while it is made: its lock, its checkpoint, and what is not yet whole.

A file has all of them beside it. A stream or a device has none, unless it was told where to keep a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rerank_cli.choices import Resume
from rerank_cli.errors import RefusedError, RerankError
from rerank_cli.run.recovery import checkpoint
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.recovery.fingerprint import Fingerprint, differences
from rerank_cli.storage.lock import locked
from rerank_cli.storage.paths import partial_of


@dataclass(frozen=True, slots=True)
class OutputState:
    """Where a run's unfinished work lies; each path is None where there is no such file.

    `queries` is where the input's reader keeps what it knows of the queries behind it, `journal` holds scores of a
    chunk that is not finished, `judged` the orders that are to be measured when the run is over.
    """

    output: str
    partial: Path | None
    checkpoint: Path | None
    lock: Path | None
    queries: Path | None
    journal: Path | None
    judged: Path | None

    @classmethod
    def of(cls, output: str, checkpoint: str | None = None) -> OutputState:
        partial = partial_of(output)
        own = Path(checkpoint) if checkpoint else None
        beside = partial.with_suffix("") if partial else None
        kept = own or _add(beside, ".checkpoint")
        others = (_add(own or beside, suffix) for suffix in (".queries", ".journal", ".judged"))
        return cls(output, partial, kept, _add(beside or own, ".lock"), *others)

    @property
    def keeps(self) -> bool:
        return self.checkpoint is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other run away from this output."""
        if self.lock is None:
            yield
            return
        with locked(self.lock, self.output):
            yield

    def saved(self, resume: Resume) -> Checkpoint | None:
        """What an earlier run left to go on from, if it is wanted. RefusedError if it is required and not there."""
        found = None
        if self.checkpoint and resume is not Resume.NEVER and (self.partial is None or self.partial.exists()):
            found = checkpoint.load(self.checkpoint)
        if found is None and resume is Resume.REQUIRE:
            fix = "--resume auto" if self.keeps else "--checkpoint FILE"
            raise RefusedError(f"{self.output}: there is no checkpoint to go on from. Fix: {fix}")
        return found

    def sealed(self) -> Checkpoint | None:
        """The checkpoint of a run that had finished its output and was killed before it could tidy up."""
        if self.checkpoint is None or self.partial is None:
            return None
        try:
            found = checkpoint.load(self.checkpoint)
        except RerankError:
            return None
        return found if found and found.sealed else None

    def refuse_another_run(self, saved: Checkpoint, now: Fingerprint) -> None:
        """RefusedError that says what differs between that run and this one."""
        found = differences(saved.fingerprint, now)
        if found:
            what = "; ".join(found)
            raise RefusedError(f"{self.output}: begun by another run ({what}). Fix: --restart, or another -o")

    def keep(self, point: Checkpoint) -> None:
        """Write down a commit."""
        if self.checkpoint is not None:
            checkpoint.save(point, self.checkpoint)

    def forget(self) -> None:
        """Remove all but the lock: the output is whole."""
        if self.journal is not None:
            self.journal.unlink(missing_ok=True)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Remove what an earlier run was in the midst of. Its journal tells by itself what it is good for."""
        if self.queries is not None:
            self.queries.unlink(missing_ok=True)
        if self.checkpoint is not None:
            checkpoint.remove(self.checkpoint)
        # A checkpoint speaks of it: a kill between the two must not leave one without the other.
        if self.judged is not None:
            self.judged.unlink(missing_ok=True)


def _add(path: Path | None, suffix: str) -> Path | None:
    return path.with_name(path.name + suffix) if path else None
