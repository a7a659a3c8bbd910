"""Workers as actors of a Ray cluster: Ray gives each a place, now or when one is free; the job calls its methods.

An actor that cannot be reached is given up, like one that died: what it was working on is scored elsewhere.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from rerank_cli.errors import BadRecord, RerankError
from rerank_cli.run.scoring.workers.messages import Answer, Failed, Opened, Order
from rerank_cli.run.scoring.workers.ray_actor import GROUPS, Closed, Placed, RayAnswer, RayWorker, versions
from rerank_cli.run.scoring.workers.ray_cluster import RayCluster
from rerank_cli.run.scoring.workers.transport import Ended, Link, Place
from rerank_cli.run.threads import Behind

_POLL = 0.1
_WAITING_ORDERS = 4
_LOGGER = "rerank_cli"
_UNPLACED = "ended before Ray gave it a place"

_Arrived: TypeAlias = "queue.SimpleQueue[tuple[RayLink, Future[list[RayAnswer]]] | None]"


@dataclass(frozen=True, slots=True)
class Needs:
    """What an actor takes of a node. `spread` over the nodes, instead of one node after the other."""

    cpus: float
    gpus: float = 0.0
    spread: bool = False

    def __str__(self) -> str:
        kinds = [(self.gpus, "GPU"), (self.cpus, "CPU")]
        return " and ".join(f"{amount:g} {name}{'s' * (amount > 1)}" for amount, name in kinds if amount) or "0 CPUs"

    @property
    def scarce(self) -> str:
        """The resource that limits the number of actors."""
        return "GPU" if self.gpus else "CPU"


class RayTransport:
    """See `Transport`. Connects to the cluster, and leaves it when closed."""

    flag = "--workers"
    window = 8  # cards of a cluster differ more than those of a machine, see benchmarks/scale.py

    def __init__(self, cluster: RayCluster, needs: Needs) -> None:
        self.cluster = cluster
        self._needs = needs
        self._arrived: _Arrived = queue.SimpleQueue()
        self._woken = False
        cluster.enter()

    def start(self, places: Sequence[Place]) -> list[Link]:
        import ray
        from ray import cloudpickle

        actor: Any = ray.remote(concurrency_groups=GROUPS)(RayWorker)
        placing = {"scheduling_strategy": "SPREAD"} if self._needs.spread else {}
        needed = {"num_cpus": self._needs.cpus, "num_gpus": self._needs.gpus, "max_restarts": 0, "max_task_retries": 0}
        actor = actor.options(**needed, **placing)
        level = logging.getLogger(_LOGGER).getEffectiveLevel()
        expected = versions()
        handles = [actor.remote(cloudpickle.dumps(place.open_session), expected, level) for place in places]
        return [RayLink(handle, self.cluster, self._arrived) for handle in handles]

    def wait(self, links: Sequence[Link], wakeable: bool) -> list[Link]:
        end = time.monotonic() + _POLL
        while True:
            ready = [link for link in links if isinstance(link, RayLink) and link.inbox]
            left = end - time.monotonic()
            if ready or left <= 0 or (wakeable and self._woken):
                self._woken = self._woken and not wakeable
                return list(ready)
            with suppress(queue.Empty):
                self._take(self._arrived.get(timeout=left))
                while True:
                    self._take(self._arrived.get_nowait())

    def _take(self, arrived: tuple[RayLink, Future[list[RayAnswer]]] | None) -> None:
        if arrived is None:
            self._woken = True
        else:
            link, answers = arrived
            link.take(answers)

    def wake(self) -> None:
        self._arrived.put(None)

    def shortage(self) -> str:
        kind = self._needs.scarce
        has, free = self.cluster.total(kind), self.cluster.free(kind)
        return f"each takes {self._needs}; the Ray cluster has {has:g} {kind}{'s' * (has != 1)}, {free:g} free"

    def close(self) -> None:
        self.cluster.leave()


class RayLink:
    """See `Link`."""

    here = False

    def __init__(self, actor: Any, cluster: RayCluster, arrived: _Arrived) -> None:
        self.inbox: deque[Answer | None] = deque()
        self.actor = actor
        self.node: str | None = None
        self._node_id = ""
        self._cluster = cluster
        self._arrived = arrived
        self._opened = False
        self._ended: Ended | None = None
        self._sent = 0
        self._outbox = Behind[Order](self._send, depth=_WAITING_ORDERS)
        self._ask()

    def tell(self, order: Order) -> None:
        if self._ended is None:
            self._outbox.put(order)

    def _send(self, order: Order) -> None:
        self.actor.order.options(concurrency_group="orders").remote(self._sent, order)
        self._sent += 1

    def _ask(self) -> None:
        answers = self.actor.answers.options(concurrency_group="answers").remote().future()
        answers.add_done_callback(lambda found: self._arrived.put((self, found)))

    def take(self, arrived: Future[list[RayAnswer]]) -> None:
        """Put answers that have arrived into the inbox, None last if the actor has ended, and ask for more."""
        import ray

        if self._ended is not None:
            return
        try:
            answers = arrived.result()
        except ray.exceptions.RayError as error:
            self._ended = self._how(error)
            self.inbox.append(None)
            return
        for answer in answers:
            if isinstance(answer, Placed):
                self._node_id, self.node = answer.node, self._cluster.name_of(answer.node)
            elif isinstance(answer, Closed):
                self._ended = Ended("ended")
                self.inbox.append(None)
                return
            else:
                self._opened = self._opened or isinstance(answer, Opened)
                self.inbox.append(self._named(answer))
        self._ask()

    def _named(self, answer: Answer) -> Answer:
        """The answer; an error of opening the model says on which node."""
        if self._opened or not isinstance(answer, Failed) or not isinstance(answer.error, RerankError):
            return answer
        if isinstance(answer.error, BadRecord):
            return answer
        error = type(answer.error)(f"node {self.node}: {answer.error}")
        for note in getattr(answer.error, "__notes__", ()):
            error.add_note(note)
        return Failed(error)

    def _how(self, error: Exception) -> Ended:
        """How the actor ended, from Ray's error."""
        import ray

        if getattr(error, "actor_init_failed", False) or isinstance(error, ray.exceptions.RuntimeEnvSetupError):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return Ended(f"could not be started ({lines[-1][:300]})")
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            return Ended("was ended by Ray because its node had too little memory")
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            return Ended("could not be reached any more", blameless=True)
        if getattr(error, "preempted", False) or (self._node_id and self._cluster.is_lost(self._node_id)):
            return Ended("ended with its node", blameless=True)
        return Ended("died" if self._node_id else _UNPLACED)

    def hear(self) -> Answer | None:
        return self.inbox.popleft()

    def kill(self) -> None:
        import ray

        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(self.actor)

    def end(self) -> Ended:
        self.kill()
        ended = self._ended or Ended("was ended")
        if self._ended is None:
            self._ended = ended
        self._outbox.close()
        return ended
