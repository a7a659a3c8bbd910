"""The status of a job with an output folder, over all its processes, read without disturbing them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rerank_cli.choices import OutputFormat
from rerank_cli.errors import InputError, RerankError
from rerank_cli.run.folders.inputs import find_items_of
from rerank_cli.run.folders.state import Failure, FolderState, Record
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.storage.lease import Worker, leased, note_of, workers


@dataclass(frozen=True, slots=True)
class RunningFile:
    """A file that a process works on, None for a process between two. `progress` has the fields of its snapshot."""

    output: str | None
    process: str
    progress: Mapping[str, Any] | None
    pairs_per_second: float


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """`state` is `running`, `stopped` (the same command continues) or `complete`.

    `files` is None if the inputs cannot be listed from here; then `waiting` and `eta_seconds` are None too. `begun` are
    those of the waiting ones that have a checkpoint. Sizes of inputs are in bytes.
    """

    output: str
    state: str
    files: int | None
    done: int
    waiting: int | None
    begun: int
    running: tuple[RunningFile, ...]
    failed: tuple[Failure, ...]
    records: int
    pairs: int
    rejected: int
    input_bytes: int | None
    input_bytes_done: int
    pairs_per_second: float
    eta_seconds: float | None
    command: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def is_folder_job(output: str) -> bool:
    """Whether a path is the output folder of a job, finished or not."""
    state = FolderState(Path(output))
    with suppress(RerankError):
        return Path(output).is_dir() and (state.job() is not None or state.manifest() is not None)
    return True


def folder_status(output: str) -> FolderStatus:
    """Raises InputError if no job has written to this folder, RefusedError if its manifest is damaged."""
    state = FolderState(Path(output))
    job, manifest = state.job(), state.manifest()
    if job is None and manifest is None:
        raise InputError(f"{output}: no job has written to this folder")
    records = {name: record for name, record in state.records().items() if _is_there(state, record)}
    running = _running(state) if job else ()
    at_work = {found.output for found in running if found.output}
    sizes = _inputs(job, output) if job else {name: record.input_bytes for name, record in records.items()}
    failed = tuple(found for name, found in sorted(state.failures().items()) if name not in {*records, *at_work})
    rate = sum(found.pairs_per_second for found in running)
    found = FolderStatus(
        output,
        "complete" if state.is_complete and not job else "running" if running else "stopped",
        None if sizes is None else len(sizes),
        len(records if sizes is None else records.keys() & sizes.keys()),
        None,
        0,
        running,
        failed,
        sum(record.records for record in records.values()),
        sum(record.pairs for record in records.values()),
        sum(record.rejected for record in records.values()),
        None if sizes is None else sum(sizes.values()),
        sum(record.input_bytes for record in records.values()),
        round(rate, 2),
        None,
        (job or manifest or {}).get("command") or None,
    )
    if sizes is None:
        return found
    waiting = sizes.keys() - records.keys() - at_work - {failure.output for failure in failed}
    begun = len([name for name in waiting if _has_checkpoint(state, name)])
    left = sum(sizes[name] for name in (waiting | at_work) & sizes.keys())
    left -= round(sum(_share(each) * sizes.get(each.output or "", 0) for each in running))
    density = found.pairs / found.input_bytes_done if found.input_bytes_done else None
    eta = left * density / rate if rate and density else None
    return replace(found, waiting=len(waiting), begun=begun, eta_seconds=None if eta is None else round(eta, 1))


def _running(state: FolderState) -> tuple[RunningFile, ...]:
    looker = Worker(state.own)
    names = {token: name for name, token in leased(state.own).items()}
    found = []
    for token in workers(state.own):
        if looker.is_alive(token):
            note = note_of(state.own, token)
            name = names.get(token) if names.get(token) == note.get("output") else note.get("output")
            pace = float((note.get("file") or {}).get("pairs_per_second") or 0.0)
            found.append(RunningFile(name, looker.process(token), note.get("file"), pace))
    return tuple(sorted(found, key=lambda each: each.process))


def _inputs(job: Mapping[str, Any], output: str) -> dict[str, int] | None:
    """Sizes of all inputs by output, None if they cannot be found from here."""
    for paths in (job["paths"], job["inputs"]):
        with suppress(RerankError, OSError):
            return {item.output: item.size for item in find_items_of(paths, output, OutputFormat(job["format"]))}
    return None


def _is_there(state: FolderState, record: Record) -> bool:
    found = state.folder.entry(record.output)
    return found is not None and found.size == record.bytes


def _has_checkpoint(state: FolderState, name: str) -> bool:
    checkpoint = OutputState.of(str(state.path / name)).checkpoint
    return checkpoint is not None and checkpoint.exists()


def _share(found: RunningFile) -> float:
    return float((found.progress or {}).get("share_done") or 0.0)
