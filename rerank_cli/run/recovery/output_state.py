"""Files that accompany an unfinished output: lock, checkpoint, journal and partial data, placed beside it.

A stream or a device has none of them unless `--checkpoint` names a file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from rerank_cli.choices import Resume
from rerank_cli.display import shown
from rerank_cli.errors import ChangedError, RefusedError, RerankError
from rerank_cli.run.recovery import checkpoint
from rerank_cli.run.recovery.checkpoint import Checkpoint
from rerank_cli.run.recovery.fingerprint import Fingerprint, differences
from rerank_cli.storage.lock import locked
from rerank_cli.storage.paths import partial_of, successor_of


@dataclass(frozen=True, slots=True)
class OutputState:
    """Paths around an output; each is None where the output has no such file.

    `queries` is the query log of the input's reader, `journal` has scores of unfinished chunks, `judged` the rankings
    to evaluate.
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

    def held(self) -> AbstractContextManager[Callable[[str], None] | None]:
        """Holds the output's lock, if it has one, and gives what sets its note, for `rerank status`.

        Raises RefusedError if another process holds it.
        """
        return locked(self.lock, self.output) if self.lock else nullcontext()

    def saved(self, resume: Resume) -> Checkpoint | None:
        """The checkpoint to resume from, if there is one. Raises RefusedError if `--resume require` finds none."""
        found = None
        if self.checkpoint and resume is not Resume.NEVER and (self.partial is None or self.partial.exists()):
            found = checkpoint.load(self.checkpoint)
        if found is None and resume is Resume.REQUIRE:
            fix = "--resume auto" if self.checkpoint else "--checkpoint FILE"
            raise RefusedError(f"{self.output}: there is no checkpoint to resume from. Fix: {fix}")
        return found

    def sealed(self) -> Checkpoint | None:
        """The checkpoint of a run that was killed between finishing its output and removing its other files."""
        found = None
        if self.checkpoint and self.partial:
            with suppress(RerankError):
                found = checkpoint.load(self.checkpoint)
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
        if self.journal is not None:
            self.journal.unlink(missing_ok=True)
        self.discard()

    def discard(self) -> None:
        """Remove an earlier run's files except its journal, whose entries are checked one by one.

        `judged` is removed after the checkpoint that refers to it, so that a kill leaves no checkpoint without it.
        """
        successor = successor_of(self.checkpoint) if self.checkpoint else None
        for path in filter(None, (self.queries, self.checkpoint, successor, self.judged)):
            path.unlink(missing_ok=True)


def _add(path: Path | None, suffix: str) -> Path | None:
    return path.with_name(path.name + suffix) if path else None
