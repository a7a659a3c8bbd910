"""A receipt on a finished output, by which the same command recognises that nothing remains to be done.

It is an attribute of the file (extended attributes, or an object's metadata), so that no second file is needed, and a
copy or an edit of a local output does not carry it. On a file system without extended attributes an existing output is
refused instead. Other attributes have the figures that `rerank status` shows of a finished output, and its command.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from rerank_cli.choices import Resume
from rerank_cli.engine.options import ModelOptions
from rerank_cli.formats import discard_partial, input_files
from rerank_cli.run.options import RunConfig
from rerank_cli.run.recovery.fingerprint import differences, settings
from rerank_cli.run.recovery.output_state import OutputState
from rerank_cli.storage.opening import Stamp, stamp_of
from rerank_cli.storage.outputs import attributes_of, identity_of, is_finished, size_of

_RECEIPT, _RECORD, _COMMAND = "run", "record", "command"


def receipt(config: RunConfig, revisions: Sequence[str], stamps: Sequence[Stamp | None]) -> str | None:
    """A hash of a run's settings, its models' revisions and its inputs' stamps; None if an input is a stream."""
    if None in stamps:
        return None
    model, sizes = config.model, (config.limit, config.chunk_pairs)
    unlisted = ["unlisted"] if config.input.by_id and config.input.by_id.answer_unlisted else []
    asked = ("+".join(revisions), model.dtype, model.max_length, model.query_max_length, *sizes, *unlisted)
    content = orjson.dumps([settings(config), asked, stamps])
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def attributes(found: str | None, rejected: int, size: int, figures: Mapping[str, Any], command: str) -> dict[str, str]:
    """The attributes of an output: its receipt, if there is one, and the figures of its run, both with its size.

    The command comes last: where there is little room for attributes, it is left out.
    """
    named = {_RECEIPT: f"{found} {size} {rejected}"} if found else {}
    return {**named, _RECORD: json.dumps({**figures, "size": size}), _COMMAND: json.dumps(command)}


def signed(path: str) -> tuple[str, int] | None:
    """Receipt and number of rejected records of an output; None without them, or if its size has changed."""
    try:
        found, size, rejected = attributes_of(path).get(_RECEIPT, "").split()
        return (found, int(rejected)) if int(size) == size_of(path) else None
    except ValueError:
        return None


def recorded(path: str) -> dict[str, Any] | None:
    """The figures stored on an output; None without them, or if its size has changed."""
    with suppress(ValueError):
        stored = attributes_of(path)
        command = {"command": orjson.loads(stored.get(_COMMAND, "null"))}  # older versions have it among the figures
        found: dict[str, Any] = command | orjson.loads(stored.get(_RECORD, ""))
        return found if found.pop("size", None) == size_of(path) else None
    return None


def complete(config: RunConfig, state: OutputState, revision_of: Callable[[ModelOptions], str] | None) -> int | None:
    """The number of rejected records if an earlier run of the same command has completed the output, else None.

    If so, removes the files that the earlier run left because it was killed after finishing the output.
    """
    path = config.output.path
    if state.partial is None or config.resume is Resume.NEVER or not is_finished(path):
        return None
    saved = state.sealed()
    found = None if config.output.overwrite else signed(path)
    if saved is None and found is None:
        return None
    stamps = [stamp_of(path) for path in input_files(config.input)]
    now = receipt(config, [revision_of(model) for model in config.models], stamps) if revision_of else None
    if saved and saved.sealed == identity_of(path):
        same = saved.receipt == now and not differences(saved.fingerprint, settings(config))
        rejected = saved.counts["rejected"] if same else None
    else:
        rejected = found[1] if found and found[0] == now else None
    if rejected is not None:
        discard_partial(path)
        state.forget()
    return rejected
