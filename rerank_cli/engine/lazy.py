"""Opens sessions without importing torch and transformers before they are needed."""

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
    """Like `session.open_session`, but a missing model is reported before torch is imported, which takes seconds."""
    checkpoint = checkpoint or find(options)
    with uncollected():
        from rerank_cli.engine.session import open_session
    return open_session(options, checkpoint)


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable garbage collection during imports: they leave no garbage, and collection takes 1/8 of their time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # imported modules stay alive until the process ends
        if collects:
            gc.enable()
