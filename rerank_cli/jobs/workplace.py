"""The files around an output while it is made: its lock, its checkpoint, and the parts that are not yet whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rerank_cli.errors import RefusedError
from rerank_cli.formats import partial_of
from rerank_cli.jobs import checkpoint
from rerank_cli.jobs.checkpoint import Checkpoint
from rerank_cli.jobs.choices import Resume
from rerank_cli.jobs.fingerprint import Fingerprint, differences
from rerank_cli.jobs.ledger import Entry
from rerank_cli.jobs.lock import locked
from rerank_cli.jobs.tally import Tally


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a run's unfinished work lies. A stream or a device has none: `partial` is None and nothing is kept."""

    output: str
    partial: Path | None

    @classmethod
    def of(cls, output: str) -> Workplace:
        return cls(output, partial_of(output))

    @property
    def keeps(self) -> bool:
        return self.partial is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other run away from this output."""
        if self.partial is None:
            yield
            return
        with locked(self._beside("lock"), self.output):
            yield

    def saved(self, resume: Resume) -> Checkpoint | None:
        """What an earlier run left to go on from, if it is wanted. RefusedError if it is required and not there."""
        found = None
        if self.partial is not None and resume is not Resume.NEVER and self.partial.exists():
            found = checkpoint.load(self._beside("checkpoint"))
        if found is None and resume is Resume.REQUIRE:
            raise RefusedError(f"{self.output}: there is no checkpoint to go on from. Fix: --resume auto")
        return found

    def refuse_another_run(self, saved: Checkpoint, now: Fingerprint) -> None:
        """RefusedError that says what differs between that run and this one."""
        found = differences(saved.fingerprint, now)
        if found:
            what = "; ".join(found)
            raise RefusedError(f"{self.output}: begun by another run ({what}). Fix: --restart, or another -o")

    def record(self, now: Fingerprint, tally: Tally, entry: Entry) -> None:
        """Write down a commit."""
        if self.partial is not None:
            point = Checkpoint(now, tally.records, entry.trace, entry.output, entry.quarantine, tally.counts())
            checkpoint.save(point, self._beside("checkpoint"))

    def forget(self) -> None:
        """Remove the checkpoint: the output is whole, or is begun anew."""
        if self.partial is not None:
            checkpoint.remove(self._beside("checkpoint"))

    def _beside(self, what: str) -> Path:
        assert self.partial is not None
        return self.partial.with_suffix(f".{what}")
