"""The Ray cluster of a job: joined by its address, or started on this machine and ended with the job.

All calls that start or stop Ray are made by one thread of its own that lives as long as the cluster. Ray sets a handler
for SIGTERM in the main thread only, where the job has its own; and the kernel ends Ray's processes with the thread that
started them. They are not in the job's process group, whose signals the job obeys.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rerank_cli.errors import ModelError, RerankError, UsageError
from rerank_cli.models.checkpoint import one_line

log = logging.getLogger(__name__)

ADDRESS = re.compile(r"auto|local|ray://.*|(\[[0-9a-fA-F:]+\]|[\w.-]+):\d+")
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of calls to actors that have died: the pool sees the death itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what later versions do; without it a warning on stderr
}
_CONNECT = 10.0  # seconds
_SIGACTION = 512  # bytes, more than a struct sigaction has anywhere
_CLIENT = "Ray Client passes all texts through one proxy, and ends the workers with its connection"


def check_address(address: str) -> None:
    """Raise UsageError unless this is an address, or empty for Ray's own rule, and Ray is installed."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise UsageError("--ray needs Ray. Fix: pip install 'rerank-cli[ray]'") from error
    if address and not ADDRESS.fullmatch(address):
        raise UsageError(f"--ray {address}: no address of a Ray cluster (expected HOST:PORT, auto or local)")
    wanted = os.environ.get("RAY_ADDRESS", "") if address in {"", "auto"} else address
    if wanted.startswith("ray://"):
        given = f"--ray {address}" if wanted == address else f"RAY_ADDRESS={wanted}"
        raise UsageError(f"{given}: {_CLIENT}. Fix: run on a node of the cluster (--ray auto), or by ray job submit")


def prepare_environment() -> None:
    """Set variables that Ray reads on import, unless the user has set them."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


class RayCluster:
    """A connection to a cluster, until `leave` was called for each `enter`. `started`: by this job, on this machine.

    A process that has connected to Ray before keeps its connection.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._users = 0
        self._names: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._leaving = threading.Event()
        self.started = False

    def enter(self) -> None:
        """Connect, or start the cluster. Raises ModelError if that fails."""
        self._users += 1
        if self._users > 1:
            return
        prepare_environment()
        import ray

        if ray.is_initialized():
            return
        self._require_answer()
        connected = threading.Event()
        failure: list[Exception] = []
        self._thread = threading.Thread(target=self._live, args=(connected, failure), name="ray", daemon=True)
        self._thread.start()
        connected.wait()
        if failure:
            self._users = 0
            raise self._unreachable(failure[0]) from failure[0]

    def _require_answer(self) -> None:
        """Raise ModelError if nothing listens at the address: Ray would try for minutes."""
        address = os.environ.get("RAY_ADDRESS", "") if self._address in {"", "auto"} else self._address
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            return
        from ray._private.services import resolve_ip_for_localhost

        try:
            host = resolve_ip_for_localhost(host.strip("[]"))  # as Ray does: a cluster is at the machine's own address
            socket.create_connection((host, int(port)), timeout=_CONNECT).close()
        except OSError as error:
            self._users = 0
            what = f"{address}: nothing answers at {host} ({one_line(error)})"
            raise ModelError(f"--ray {what}. Fix: the address that ray start printed on the head node") from error

    def leave(self) -> None:
        """Disconnect, which ends the job's workers; a cluster that was started here ends."""
        self._users -= 1
        if self._users == 0 and self._thread:
            self._leaving.set()
            self._thread.join()

    def _live(self, connected: threading.Event, failure: list[Exception]) -> None:
        try:
            import ray
            from ray._private import services
            from ray._private import worker as driver

            # Ray prints errors of the cluster to stdout, where data may go. A death is reported by the pool.
            driver.print_to_stdstream = _to_log
            if sys.platform == "linux":  # elsewhere Ray finds its processes by their group when the job is gone
                services.ConsolePopen = partial(subprocess.Popen, process_group=0)
            level = logging.WARNING if log.isEnabledFor(logging.DEBUG) else logging.CRITICAL
            logging.getLogger("ray").setLevel(level)
            with _handler_kept(signal.SIGTERM):
                ray.init(self._address or None, include_dashboard=False, logging_level=level, log_to_driver=False)
            self.started = bool(getattr(driver._global_node, "head", False))
        except Exception as error:
            failure.append(error)
            connected.set()
            return
        connected.set()
        self._leaving.wait()
        ray.shutdown()

    def _unreachable(self, error: Exception) -> RerankError:
        given = f"--ray {self._address}".strip()
        if isinstance(error, ConnectionError) and self._address == "auto":
            return ModelError(
                f"{given}: no Ray cluster runs on this machine. Fix: ray start, HOST:PORT, or --ray local"
            )
        fix = "Fix: run on a node of the cluster (ray start --address=HOST:PORT joins it), or by ray job submit"
        return ModelError(f"{given}: cannot connect to the Ray cluster ({one_line(error)}). {fix}")

    def total(self, resource: str) -> float:
        """How much of `GPU` or `CPU` the nodes have together."""
        import ray

        return float(ray.cluster_resources().get(resource, 0))

    def free(self, resource: str) -> float:
        """How much of it nobody has taken."""
        import ray

        return float(ray.available_resources().get(resource, 0))

    def name_of(self, node: str) -> str:
        """The name of the node with this id: as given to `ray start --node-name`, by default its address."""
        if node not in self._names:
            self._names |= {str(found["NodeID"]): str(found["NodeName"]) for found in _nodes()}
        return self._names.get(node, node)

    def is_lost(self, node: str) -> bool:
        """Whether the node with this id has left the cluster."""
        return not any(found["NodeID"] == node and found["Alive"] for found in _nodes())


@contextmanager
def _handler_kept(number: signal.Signals) -> Iterator[None]:
    """Restore the process's handler of a signal after the block.

    Ray's core sets one that prints a stack trace and aborts the process three seconds later. Unlike `signal.signal`,
    sigaction(2) may be called in any thread.
    """
    libc = ctypes.CDLL(None)
    before = ctypes.create_string_buffer(_SIGACTION)
    libc.sigaction(int(number), None, before)
    try:
        yield
    finally:
        libc.sigaction(int(number), before, None)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return list(ray.nodes())


def _to_log(data: dict[str, Any], **_: Any) -> None:
    for line in data.get("lines", ()):
        log.debug("Ray: %s", line)
