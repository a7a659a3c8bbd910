"""The interface between a pool and its workers: how a worker starts, and how orders and answers travel.

`processes.py` implements it for one machine, `ray_transport.py` for a Ray cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from rerank_cli.engine.contract import Session
from rerank_cli.run.scoring.workers.messages import Answer, Order


class Resizable(Session, Protocol):
    """A session that can plan rows of another size."""

    def resized(self, batch_tokens: int) -> Session: ...


OpenSession = Callable[[], Resizable]


class Place(NamedTuple):
    """A device by name, and how a worker there opens its model; picklable."""

    device: str
    open_session: OpenSession


class Channel(Protocol):
    """The worker's end. Once the job is gone, `recv` raises EOFError or OSError, `send` OSError."""

    def send(self, answer: Answer, /) -> None: ...
    def recv(self) -> Order: ...


class Ended(NamedTuple):
    """How a worker ended, in words. `blameless`: its node or its connection was lost, whatever it was scoring."""

    how: str
    blameless: bool = False


class Link(Protocol):
    """The job's end of one worker."""

    @property
    def node(self) -> str | None:
        """The name of the worker's node; None while it waits for a place."""

    @property
    def here(self) -> bool:
        """Whether all workers are on the job's own machine, so that the node need not be named."""

    def tell(self, order: Order) -> None:
        """Send without waiting for the worker; orders to a worker that has ended are dropped."""

    def hear(self) -> Answer | None:
        """The next answer, None if the worker has ended."""

    def kill(self) -> None: ...

    def end(self) -> Ended:
        """Wait for the worker to end, or kill it; returns how it ended. May be called more than once."""


class Transport(Protocol):
    """Starts workers and waits for them.

    `flag` is what the user sets the number of workers by. `window` is how many slices a worker adds to those between
    the first unscored slice and the last one handed out: a slow worker does not hold the others up while it has room.
    """

    flag: str
    window: int

    def start(self, places: Sequence[Place]) -> list[Link]:
        """One worker for each place, all started at the same time."""

    def wait(self, links: Sequence[Link], wakeable: bool) -> list[Link]:
        """Links with an answer, after at most 0.1 s; earlier if `wakeable` and `wake` is called."""

    def wake(self) -> None:
        """Thread-safe."""

    def shortage(self) -> str:
        """Why workers wait for a place, in words."""

    def close(self) -> None: ...
