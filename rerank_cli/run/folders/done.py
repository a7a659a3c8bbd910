"""Which outputs are done, and their records: also of a process that died before it wrote one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rerank_cli.choices import OnChanged
from rerank_cli.errors import ChangedError, InputError, RefusedError
from rerank_cli.formats import discard_partial, input_files
from rerank_cli.run.folders.inputs import Item
from rerank_cli.run.folders.state import FolderState, Record
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.recovery.receipt import receipt, recorded, signed
from rerank_cli.storage.files import writing
from rerank_cli.storage.opening import stamp_of
from rerank_cli.storage.outputs import identity
from rerank_cli.storage.paths import final_path


@dataclass(slots=True)
class Finished:
    """Tells which items are done; `revisions` gives those of the models."""

    config: RunConfig
    state: FolderState
    revisions: Callable[[], list[str]]
    _seen: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # what was true of an output that was done

    def is_done(self, item: Item, record: Record | None, plan: RunConfig) -> bool:
        """Whether the output is there and is that of its record, made of the input as it is now."""
        if record is None or self._size(item) != record.bytes:
            return False
        try:
            info = Path(item.input).stat()
        except OSError:
            return False
        now = (record.receipt, info.st_size, info.st_mtime_ns)
        if self._seen.get(item.output) != now:
            try:
                if self.receipt(plan) != record.receipt:
                    return False
            except InputError:
                return False
            self._seen[item.output] = now
        return True

    def receipt(self, plan: RunConfig) -> str | None:
        """See `recovery.receipt`. Raises InputError if the input cannot be read."""
        return receipt(plan, self.revisions(), [stamp_of(path) for path in input_files(plan.input)])

    def adopt(self, item: Item, plan: RunConfig) -> Record | None:
        """Write the record of an output that an earlier process, or a run of this file alone, finished."""
        final = final_path(plan.output.path)
        if not final.is_file():
            return None
        files = OutputState.of(plan.output.path)
        sealed = files.sealed()
        empty = self.state.sealed(item.output)
        found: str | None
        counts: Mapping[str, int]
        if sealed and sealed.sealed == identity(final):
            found, counts = sealed.receipt, sealed.counts
        elif empty and empty[0] == identity(final):
            found, counts = empty[1], {"records": 0, "pairs": 0, "rejected": 0}
        else:
            sealed, attached, counts = None, signed(str(final)), recorded(str(final)) or {}
            found = attached[0] if attached and counts and not plan.output.overwrite else None
        if found is None or found != self.receipt(plan):
            return None
        record = self.write(item, final, counts, found)
        if sealed:
            discard_partial(plan.output.path)
            files.forget()
        return record

    def write(self, item: Item, final: Path, counts: Mapping[str, int], found: str) -> Record:
        """Write the record of a published output."""
        with writing(str(final)), open(final, "rb") as file:
            digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        numbers = (counts["records"], counts["pairs"], counts["rejected"], size)
        record = Record(item.output, item.input, item.size, *numbers, digest, finished, found)
        self.state.add(record)
        return record

    def may_replace(self, item: Item, record: Record) -> bool:
        """Whether the output of a record that is not true any more is to be written anew.

        Raises ChangedError if its input has changed, RefusedError if the output has, unless the options allow it.
        """
        size = self._size(item)
        if size is None or self.config.output.overwrite:
            return size is not None
        output = Path(self.config.output.path) / item.output
        if size != record.bytes:
            what = f"{output}: is not the file that was written (got {size:,} bytes, expected {record.bytes:,})"
            raise RefusedError(f"{what}. Fix: delete it, or --overwrite")
        if self.config.on_changed is OnChanged.FAIL:
            fix = "--on-changed restart, --overwrite, or another -o"
            raise ChangedError(f"{item.input}: has changed since {output} was written", fix)
        self.config.notify(f"{item.input} has changed: {output} is written anew")
        return True

    def _size(self, item: Item) -> int | None:
        found = self.state.folder.entry(item.output)
        return found.size if found else None
