"""The seam between a pool and its workers: how a worker starts, and how orders and answers travel.

`processes.py` is the implementation on one machine; one for a cluster needs these two protocols and `worker.serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rerank_cli.engine.contract import Session
from rerank_cli.run.scoring.workers.messages import Answer, Order


class Resizable(Session, Protocol):
    """A session that can plan rows of another size."""

    def resized(self, batch_tokens: int) -> Session: ...


OpenSession = Callable[[], Resizable]


@dataclass(frozen=True, slots=True)
class Place:
    """A device by name, and how a worker there opens its model; can be pickled."""

    device: str
    open_session: OpenSession


class Channel(Protocol):
    """The worker's end. `recv` raises EOFError or OSError once the job is gone, `send` OSError."""

    def send(self, answer: Answer, /) -> None: ...
    def recv(self) -> Order: ...


class Link(Protocol):
    """The job's end of one worker."""

    def tell(self, order: Order) -> None:
        """Send without waiting for the worker; orders to one that is gone are dropped."""

    def hear(self) -> Answer | None:
        """The next answer, None if the worker is gone."""

    def kill(self) -> None: ...

    def end(self) -> str:
        """Wait for the worker to end, or kill it; how it ended, in words. May be called more than once."""


class Transport(Protocol):
    """Starts workers and waits for them."""

    def start(self, places: Sequence[Place]) -> list[Link]:
        """One worker a place, all starting at once."""

    def wait(self, links: Sequence[Link], wakeable: bool) -> list[Link]:
        """Links with an answer, after at most 0.1 s; sooner if `wakeable` and `wake` is called."""

    def wake(self) -> None:
        """May be called on any thread."""

    def close(self) -> None: ...
