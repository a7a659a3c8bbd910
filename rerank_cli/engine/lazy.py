"""The way to a session that costs nothing until it is taken: torch and transformers are imported then."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rerank_cli.engine.limits import find
from rerank_cli.engine.options import ModelOptions

if TYPE_CHECKING:
    from rerank_cli.engine.session import ModelSession
    from rerank_cli.models.checkpoint import Checkpoint


def start_session(options: ModelOptions, checkpoint: Checkpoint | None = None) -> ModelSession:
    """As `open_session`; that a model is not there is told before seconds go into imports."""
    checkpoint = checkpoint or find(options)
    with uncollected():
        from rerank_cli.engine.session import open_session
    return open_session(options, checkpoint)


@contextmanager
def uncollected() -> Iterator[None]:
    """Do not look for garbage while modules are imported: there is none, and looking takes an eighth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what modules hold stays until the end
        if collects:
            gc.enable()
