"""`run_file`: `rerank run` as a function."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from rerank_cli.api.settings import RunSettings, StrPath, as_keywords, named_as_keywords, spelled_out
from rerank_cli.errors import UsageError

if TYPE_CHECKING:
    from rerank_cli.engine.options import ModelOptions
    from rerank_cli.engine.session import ModelSession
    from rerank_cli.run.folders.figures import FolderSummary
    from rerank_cli.run.summary import Summary


def _say_nothing(_: str) -> None:
    """Take a message that nobody wants."""


@spelled_out(RunSettings)
def run_file(
    inputs: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    notify: Callable[[str], None] = _say_nothing,
    signals: bool = False,
    **settings: Unpack[RunSettings],
) -> Summary | FolderSummary:
    """Rerank files into `output` as `rerank run` does: streamed, resumable, and complete or not there at all.

    With a folder as output (a slash at its end, or an existing one) every input file becomes a file in it, as in
    `rerank run in/ -o out/`; the summary is one of all files then.

    `inputs` is a file or several, empty with `run=`, `first_stage=` or `dataset=` (candidates by id). The keywords are
    the flags of `rerank run`: `model="mini"`, `top_n=10`, `on_error="skip"`. Neither the environment nor a
    configuration file is read, and progress is off unless `progress` asks for it. `notify` gets each message that the
    command would print.

    Returns the summary: `stats` has counts; `exit_reason` is `finished`, `rejected` (finished, bad records were left
    out) or `max-duration`; `as_json()` is what `--summary` writes. Raises the errors of `rerank_cli.errors`.

    The process is never ended. Signal handlers are set only with `signals`, which needs the main thread: then the first
    Ctrl-C or SIGTERM commits what is done and returns, with the signal's name as `exit_reason`. The same call continues
    a run that was stopped, by an exception too. A script that uses `devices` needs `if __name__ == "__main__":`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        what = "a worker process imports this script, which would run its jobs again"
        raise UsageError(f'run_file: {what}. Fix: call it under if __name__ == "__main__":')
    from rerank_cli.cli.flags.declare import from_keywords
    from rerank_cli.cli.run import configured
    from rerank_cli.engine.limits import find
    from rerank_cli.run.folders.inputs import expanded, is_folder
    from rerank_cli.run.folders.job import run_folder
    from rerank_cli.run.job import run
    from rerank_cli.run.scoring.dtype_advice import DtypeAdvice
    from rerank_cli.run.scoring.workers.devices import crew_opener

    asked: dict[str, Any] = {"progress": "off", **settings, "inputs": inputs, "output": output}
    if not isinstance(inputs, str) and isinstance(inputs, Sequence) and not inputs:
        if not (settings.get("run") or settings.get("first_stage") or settings.get("dataset")):
            raise UsageError(
                "inputs is empty. Fix: name a file, or run=, first_stage= or dataset= for candidates by id"
            )
        asked["inputs"] = None
    with named_as_keywords():
        config, crew = from_keywords(configured, asked)
        if config.output.path == "-":
            raise UsageError("output '-': run_file writes a file, not stdout. Fix: name a file")
        open_model = _open if crew is None else crew_opener(crew)
        config = replace(config, notify=lambda message: notify(as_keywords(message)))
        chosen = notify is _say_nothing or crew is not None or "dtype" in settings
        advice = None if chosen else DtypeAdvice(config.notify, _open)
        if is_folder(config.output.path):
            return run_folder(config, open_model, lambda wanted: find(wanted).revision, signals=signals, advice=advice)[
                0
            ]
        return run(expanded(config), open_model, lambda wanted: find(wanted).revision, signals=signals, advice=advice)[
            0
        ]


def _open(options: ModelOptions) -> ModelSession:
    """Open a model and leave the garbage collector alone, which `lazy.start_session` changes for the whole process."""
    from rerank_cli.engine.limits import find

    checkpoint = find(options)
    from rerank_cli.engine.session import open_session

    return open_session(options, checkpoint)
