"""A worker in a Ray actor: the session of a local worker behind two methods, one for orders and one for answers.

The job asks for answers again and again; a call waits until there are some. Calls may overtake each other on the way,
so orders are numbered. The job ends the actor, or Ray does once the job is gone.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import NamedTuple

from rerank_cli import __version__
from rerank_cli.errors import ModelError
from rerank_cli.run.scoring.workers.messages import Answer, Failed, Order
from rerank_cli.run.scoring.workers.processes import SentLog
from rerank_cli.run.scoring.workers.transport import OpenSession, Resizable
from rerank_cli.run.scoring.workers.worker import Sender, serve

GROUPS = {"orders": 1, "answers": 1}  # Ray's concurrency groups: one thread each
_LIBRARIES = ("torch", "transformers", "tokenizers")  # scores depend on them
_LOGGER = "rerank_cli"


class Placed(NamedTuple):
    """First answer: the id of the node that the actor is on."""

    node: str


class Closed(NamedTuple):
    """Last answer: the worker has ended by itself."""


RayAnswer = Answer | Placed | Closed


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that scores depend on, without importing them.

    A suffix like +cpu is left out: the job's own machine may have another build than its workers.
    """
    found = {"rerank-cli": __version__}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name).partition("+")[0]
    return found


class RayWorker:
    """The actor. `opener` is a pickled `transport.OpenSession`, which is read only if all versions are `expected`."""

    def __init__(self, opener: bytes, expected: Mapping[str, str], log_level: int) -> None:
        import ray

        self._opener = opener
        self._expected = expected
        self._log_level = log_level
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[RayAnswer] = queue.SimpleQueue()
        self._early: dict[int, Order] = {}
        self._next = 0
        self._answers.put(Placed(ray.get_runtime_context().get_node_id()))
        threading.Thread(target=self._work, daemon=True).start()

    def order(self, number: int, order: Order) -> None:
        """Take an order; orders are worked on by their numbers, from 0. In group `orders`."""
        self._early[number] = order
        while self._next in self._early:
            self._orders.put(self._early.pop(self._next))
            self._next += 1

    def answers(self) -> list[RayAnswer]:
        """The answers since the last call, at least one. In group `answers`."""
        found = [self._answers.get()]
        with suppress(queue.Empty):
            while True:
                found.append(self._answers.get_nowait())
        return found

    def _work(self) -> None:
        sender = Sender(self, lambda: os._exit(0))
        logger = logging.getLogger(_LOGGER)
        logger.handlers, logger.propagate = [SentLog(sender)], False
        logger.setLevel(self._log_level)
        if different := difference(self._expected):
            self.send(Failed(ModelError(different)))
        else:
            serve(self, sender, self._open)
        self._answers.put(Closed())

    def _open(self) -> Resizable:
        open_session: OpenSession = pickle.loads(self._opener)
        return open_session()

    def send(self, answer: Answer) -> None:
        """See `transport.Channel`."""
        self._answers.put(answer)

    def recv(self) -> Order:
        """See `transport.Channel`."""
        return self._orders.get()


def difference(expected: Mapping[str, str]) -> str:
    """What is another version here than where the job was started, in words; empty if nothing is."""
    found = versions()
    different = [
        f"{name} {found.get(name, 'is missing')} (there {version})"
        for name, version in expected.items()
        if found.get(name) != version
    ]
    if not different:
        return ""
    what = f"other versions than where the job was started: {', '.join(different)}; scores could differ"
    return f"{what}. Fix: the same environment on every node, see docs/scale.md"
