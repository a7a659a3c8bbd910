"""How a process joins a job: compares settings and inputs with those of the processes before it, or starts over."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rerank_cli.choices import OnChanged, Resume
from rerank_cli.errors import ChangedError, HeldError, RefusedError
from rerank_cli.formats import discard_partial
from rerank_cli.run.folders.inputs import Item
from rerank_cli.run.folders.state import SUCCESS, FolderState
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.fingerprint import Fingerprint, differences, settings
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.storage.lease import Worker


def folder_settings(config: RunConfig, revisions: list[str]) -> Fingerprint:
    """All settings that outputs depend on, as far as they are known before a model is loaded."""
    model = config.model
    return settings(config) | {
        "model revision": "+".join(revisions),
        "dtype given": model.dtype,
        "max length given": model.max_length,
        "query max length given": model.query_max_length,
        "limit": config.limit,
        "chunk pairs given": config.chunk_pairs,
    }


def begin(config: RunConfig, mark: Fingerprint, state: FolderState, items: list[Item], worker: Worker) -> bool:
    """Join or start the job; whether it is a new one. The caller holds the lease of the folder.

    Raises ChangedError or RefusedError for what another command has done or does in the folder, HeldError if it would
    start over while other processes work.
    """
    job, manifest, out = state.job(), state.manifest(), config.output.path
    if state.is_complete and manifest is None and job is None and not config.output.overwrite:
        raise RefusedError(f"{out}: {SUCCESS} is there, but no manifest of rerank. Fix: --overwrite, or another -o")
    if job is None and manifest and config.output.overwrite:
        _refuse_others(out, worker)
        state.forget_manifest()
        manifest = None
    if job and config.resume is Resume.NEVER:
        job = _start_over(config, state, items, worker)
    if job is None and config.resume is Resume.REQUIRE and manifest is None:
        raise RefusedError(f"{out}: there is no unfinished job to resume. Fix: --resume auto")
    if job is None and manifest and (found := differences(manifest["settings"], mark)):
        what = f"complete, but made with other settings ({'; '.join(found)})"
        raise RefusedError(f"{out}: {what}. Fix: --overwrite, or another -o")
    if job:
        found = differences(job["settings"], mark)
        gone = [path for path in job["inputs"] if path not in config.input.paths]
        what = f"started with other settings ({'; '.join(found)})" if found else ""
        if gone:
            what = what or f"started with other inputs ({gone[0]} is not among those of this command)"
        if what and config.on_changed is OnChanged.FAIL:
            raise ChangedError(f"{out}: {what}")
        if what:
            config.notify(f"{out}: {what}; starting over")
            job = _start_over(config, state, items, worker)
    return job is None


def _start_over(config: RunConfig, state: FolderState, items: list[Item], worker: Worker) -> dict[str, Any] | None:
    """Delete what the unfinished job has left, its finished outputs included; outputs in the manifest stay."""
    _refuse_others(config.output.path, worker)
    outputs = {item.output for item in items}
    for record in list(state.unlisted()):
        outputs.add(record.output)
        state.folder.delete(record.output)
    for output in outputs:
        path = str(state.path / output)
        with suppress(FileNotFoundError):
            OutputState.of(path).forget()
            discard_partial(path)
    state.tidy()
    return None


def _refuse_others(out: str, worker: Worker) -> None:
    if others := worker.others():
        who = worker.process(others[0])
        raise HeldError(f"{out}: cannot start over while {who} works on it. Fix: end it, or join without --restart")
