"""`rerank merge`: the finished outputs of all shards become one output, whole or not at all.

What a shard says of itself (`recovery/shard_note.py`) must fit what the others say: the same number of shards, settings
and inputs, and each shard begins with the record after the last one of the shard before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rerank_cli import __version__
from rerank_cli.choices import OutputFormat
from rerank_cli.display import shown
from rerank_cli.errors import InputError, RefusedError, UsageError
from rerank_cli.formats import AnswerOptions, OutputOptions, check_side_file, discard_partial, refuse_existing
from rerank_cli.formats.writing.containers import container_of
from rerank_cli.formats.writing.sinks import check_path
from rerank_cli.run.recovery.fingerprint import differences
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.run.recovery.receipt import attributes, signed
from rerank_cli.run.recovery.shard_note import ShardNote, note_of
from rerank_cli.run.shard import Shard, by_name
from rerank_cli.run.sharding.joining import join
from rerank_cli.storage.compression import compression_of
from rerank_cli.storage.files import new_hash, writing
from rerank_cli.storage.opening import open_file
from rerank_cli.storage.outputs import is_finished, publish
from rerank_cli.storage.paths import STREAM, is_special, partial_path


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """`shards` in any order. `errors` is where the quarantine files go; `by_name` trusts file names without notes."""

    shards: Sequence[str]
    output: str
    errors: str | None = None
    overwrite: bool = False
    by_name: bool = False
    notify: Callable[[str], None] = field(default=lambda _: None)
    command: str = ""


@dataclass(frozen=True, slots=True)
class Merged:
    """`records` and `rejected` are None without receipts. `nothing_to_do`: the output was complete already."""

    shards: int
    records: int | None
    rejected: int | None
    nothing_to_do: bool = False


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    shard: Shard
    note: ShardNote | None


def merge(options: MergeOptions) -> Merged:
    """Raises UsageError, InputError for a file that is not there, RefusedError for shards that do not fit."""
    _check_paths(options)
    files = _complete([_opened(path, options.by_name) for path in options.shards])
    notes = [file.note for file in files if file.note]
    _check_fit(files)
    quarantines = _quarantines(options, files, notes)
    totals = {name: sum(note.counts.get(name, 0) for note in notes) for name in notes[0].counts} if notes else {}
    counted = bool(notes) and len(notes) == len(files)
    records, rejected = (totals["records"], totals["rejected"]) if counted else (None, None)
    mark = _receipt(options, files) if counted else None
    state = OutputState.of(options.output)
    with state.held(options.notify):
        state.refuse_unfinished()
        if mark and not options.overwrite and signed(options.output) == (mark, rejected):
            discard_partial(options.output)
            return Merged(len(files), records, rejected, nothing_to_do=True)
        refuse_existing(_output(options))
        if options.errors:
            _publish(options.errors, lambda file: _concatenate(quarantines, file))
        figures = _figures(files[0].note, notes, totals, options.command) if counted else None
        _publish(options.output, lambda file: join([found.path for found in files], file), mark, rejected, figures)
    return Merged(len(files), records, rejected)


def _output(options: MergeOptions) -> OutputOptions:
    return OutputOptions(options.output, OutputFormat.API, AnswerOptions(""), overwrite=options.overwrite)


def _check_paths(options: MergeOptions) -> None:
    if options.output == STREAM or is_special(options.output):
        raise UsageError(f"-o {options.output}: rerank merge writes a regular file. Fix: name one")
    check_path(options.output, options.shards)
    if options.errors:
        check_side_file(options.errors, "--errors", _output(options), options.shards)
    kind = container_of(options.output, OutputFormat.API), compression_of(options.output)
    for path in options.shards:
        if (container_of(path, OutputFormat.API), compression_of(path)) != kind:
            what = f"has another suffix than -o {shown(options.output, 300)}"
            raise UsageError(f"{shown(path, 300)}: {what}. Fix: -o with the suffix of the shards")


def _opened(path: str, trust_name: bool) -> _File:
    """A finished shard, by its note, else by its name."""
    name = shown(path, 300)
    if not is_finished(path):
        raise _unfinished(path) or InputError(f"{name}: there is no such file")
    note = note_of(path)
    if note:
        return _File(path, Shard(note.index, note.count), note)
    shard = by_name(path)
    if trust_name and shard:
        return _File(path, shard, None)
    if signed(path):
        raise RefusedError(f"{name}: is a whole output, not one of --shard. Fix: leave it out")
    if shard is None:
        raise RefusedError(f"{name}: is not a shard (expected a name like part-00003-of-00008). Fix: leave it out")
    what = "has no receipt: it was changed or copied, or its file system has no extended attributes"
    raise RefusedError(f"{name}: {what}. Fix: copy with the attributes (rsync -X), or --by-name")


def _unfinished(path: str) -> RefusedError | None:
    """The error for an output that a run has begun, None if none has."""
    state = OutputState.of(path)
    begun = any(file and file.exists() for file in (state.partial, state.checkpoint))
    fix = "Fix: run the command of this shard again"
    return RefusedError(f"{shown(path, 300)}: is not finished (rerank status shows how far). {fix}") if begun else None


def _complete(files: Sequence[_File]) -> list[_File]:
    """All shards in order. Raises RefusedError for one that is missing, is there twice, or is of another number."""
    count, first = files[0].shard.count, shown(files[0].path, 200)
    found: dict[int, _File] = {}
    for file in files:
        if file.shard.count != count:
            got = f"got {file.shard}, expected {count} shards as in {first}"
            raise RefusedError(f"{shown(file.path, 300)}: belongs to another number of shards ({got})")
        other = found.setdefault(file.shard.index, file)
        if other is not file:
            what = f"is shard {file.shard}, and so is {shown(other.path, 200)}"
            raise RefusedError(f"{shown(file.path, 300)}: {what}. Fix: leave one of them out")
    for index in range(count):
        if index not in found:
            raise _missing(files[0], Shard(index, count))
    return [found[index] for index in range(count)]


def _missing(other: _File, shard: Shard) -> RefusedError:
    folder, slash, name = other.path.rpartition("/")
    numbered = f"{other.shard.index:05d}-of-{other.shard.count:05d}"
    path = folder + slash + name.replace(numbered, f"{shard.index:05d}-of-{shard.count:05d}")
    if numbered not in name:
        path = f"shard {shard}"
    elif unfinished := _unfinished(path):
        return unfinished
    what = "was not named" if is_finished(path) else "is missing"
    return RefusedError(f"{shown(path, 300)}: {what} (all {shard.count} shards are needed). Fix: name it too")


def _check_fit(files: Sequence[_File]) -> None:
    """Raise RefusedError for a shard of another input or other settings, or that leaves a gap or an overlap."""
    before: tuple[_File, ShardNote] | None = None
    for file in files:
        if (note := file.note) is None:
            continue
        name = shown(file.path, 300)
        if before:
            other, known = before
            of = shown(other.path, 200)
            if changed := differences(dict(known.settings), dict(note.settings)):
                raise RefusedError(f"{name}: made with other settings than {of} ({'; '.join(changed)})")
            if note.inputs != known.inputs:
                raise RefusedError(f"{name}: made from another input than {of}. Fix: run the shard again")
            reached = known.before + known.records
            if other.shard.index + 1 == file.shard.index and note.before != reached:
                what = "overlaps with" if note.before < reached else "leaves a gap after"
                got = f"got a first record number {note.before + 1:,}, expected {reached + 1:,}"
                raise RefusedError(f"{name}: {what} {of} ({got}). Fix: run both shards again")
        before = file, note


def _quarantines(options: MergeOptions, files: Sequence[_File], notes: Sequence[ShardNote]) -> list[str]:
    """The quarantine files of the shards, in order. Raises UsageError if there are none, InputError if one is gone."""
    kept = [note.errors for note in notes if note.errors]
    if options.errors is None:
        rejected = sum(note.counts["rejected"] for note in notes)
        if kept and rejected:
            where = f"{shown(kept[0], 200)} and those of the other shards"
            options.notify(f"{rejected:,} rejected records are listed in {where} (--errors FILE merges them)")
        return []
    if len(kept) != len(files):
        what = f"{len(files) - len(kept)} of {len(files)} shards have no quarantine file"
        raise UsageError(f"--errors {options.errors}: {what}. Fix: leave it out")
    found = []
    for path, file in zip(kept, files, strict=True):
        folder, slash, _ = file.path.rpartition("/")
        beside = folder + slash + path.rpartition("/")[2]  # if all files were moved
        existing = next((found for found in (beside, path) if is_finished(found)), None)
        if existing is None:
            raise InputError(f"{shown(path, 300)}: there is no such file. Fix: merge without --errors")
        found.append(existing)
    return found


def _receipt(options: MergeOptions, files: Sequence[_File]) -> str:
    """The receipt of the run without `--shard`, if all shards agree on it and its quarantine file is merged too."""
    notes = [file.note for file in files if file.note]
    whole = {note.whole for note in notes}
    same = len(whole) == 1 and all(note.errors_given == options.errors for note in notes)
    content = "\n".join(f"{note.index} {note.whole} {note.before} {note.records} {options.errors}" for note in notes)
    return (same and notes[0].whole) or f"merged-{new_hash(content.encode()).hexdigest()}"


def _figures(
    first: ShardNote | None, notes: Sequence[ShardNote], totals: dict[str, int], command: str
) -> dict[str, Any]:
    """What the merged output carries for `rerank status`, see `Summary.record`; seconds are the sum of all shards."""
    made = first.settings if first else {}
    seconds = sum(note.seconds for note in notes)
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        **{name: totals.get(name, 0) for name in ("records", "pairs", "tokens", "rejected")},
        "truncated_pairs": totals.get("truncated", 0),
        "pairs_per_second": round(totals.get("pairs", 0) / max(seconds, 1e-9), 2),
        "model": made.get("model"),
        "revision": made.get("model revision"),
        "device": f"{len(notes)} shards",
        "dtype": made.get("dtype"),
        "version": __version__,
        "command": command[:1500],
    }


def _concatenate(paths: Sequence[str], file: Any) -> None:
    for path in paths:
        with open_file(path) as part:
            while block := part.read(1 << 20):
                file.write(block)


def _publish(
    path: str,
    write: Callable[[Any], None],
    receipt: str | None = None,
    rejected: int | None = None,
    figures: dict[str, Any] | None = None,
) -> None:
    """Write a file under its provisional name, make it durable, sign it and rename it."""
    partial = partial_path(path)
    discard_partial(path)
    try:
        with writing(path), open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    known = dict(figures or {})
    command = known.pop("command", "")
    marks = attributes(receipt, rejected or 0, partial.stat().st_size, known, command) if figures else {}
    publish(partial, path, marks)
