"""`--ray` and `--workers`: the workers of a run in a Ray cluster, and how each opens the model on its node."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rerank_cli.engine.lazy import uncollected
from rerank_cli.engine.limits import find
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.checkpoint import MINI
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.workers.ray_cluster import RayCluster, check_address
from rerank_cli.run.scoring.workers.ray_transport import Needs, RayTransport
from rerank_cli.run.scoring.workers.transport import Place, Resizable

_RANGE = re.compile(r"([1-9]\d{0,5})(?:\.\.([1-9]\d{0,5}))?")
_SMALL = 0.25  # share of a card that the small model of a cascade takes; two large ones never share a card


@dataclass(frozen=True, slots=True)
class RayOptions:
    """`address` is empty for Ray's own rule. The run starts with `least` workers and takes up to `most`.

    Without them it starts with one, and takes as many as the cluster has room for at the start. With a cascade each
    device has a worker of each model.
    """

    address: str
    least: int | None = None
    most: int | None = None
    cascade: bool = False

    @staticmethod
    def parse(address: str, workers: str | None, device: str, *, cascade: bool) -> RayOptions:
        """Check the flags together. Raises UsageError."""
        check_address(address)
        if device not in {"auto", "cpu", "cuda"}:
            raise UsageError(f"--device {device} with --ray: Ray chooses the card. Fix: --device cuda, or cpu")
        if workers is None:
            return RayOptions(address, cascade=cascade)
        found = _RANGE.fullmatch(workers)
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise UsageError(f"--workers {workers}: expected a number from 1, or MIN..MAX")
        return RayOptions(address, int(found[1]), int(found[2] or found[1]), cascade)


class RayWorkers:
    """Opens the models of a run, each with workers of its own in one cluster: the model first, then a small one."""

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._cluster = RayCluster(options.address)
        self._opened = 0

    def __call__(self, options: ModelOptions) -> Workers:
        """Raises UsageError, ModelError. The checkpoint is looked up here too: a wrong name is reported first."""
        revision = find(options).revision
        self._cluster.enter()
        try:
            if options.device == "auto":
                options = replace(options, device="cuda" if self._cluster.total("GPU") else "cpu")
            if options.device == "cpu":
                options = replace(options, threads=options.threads or 1)
            least, most = self._numbers(options)
            needs = self._needs(options)
            self._opened += 1
            place = Place(options.device, partial(open_there, options, *found_anywhere(options, revision)))
            return Workers([place] * most, RayTransport(self._cluster, needs), least)
        finally:
            self._cluster.leave()

    def _needs(self, options: ModelOptions) -> Needs:
        """What one worker takes."""
        small = self._opened > 0
        if options.device == "cpu":
            return Needs(0, spread=True) if small else Needs(options.threads or 1)
        share = (_SMALL if small else 1 - _SMALL) if self._options.cascade else 1
        return Needs(0 if small else options.threads or 1, share)

    def _numbers(self, options: ModelOptions) -> tuple[int, int]:
        """Workers to start with, and at most. Raises UsageError for more than a cluster started here has room for."""
        kind, each = ("CPU", options.threads or 1) if options.device == "cpu" else ("GPU", 1)
        has = self._cluster.total(kind)
        room = int(has // each)
        least, most = self._options.least or 1, self._options.most or room
        if most == 0:
            what = f"--ray: a worker takes {each} {kind}{'s' * (each > 1)}, the cluster has {has:g} now"
            fix = "--ray ADDRESS" if self._cluster.started else "--workers N waits for them"
            raise UsageError(f"{what}. Fix: {fix}, or --device cpu")
        if self._cluster.started and least > room:
            what = f"--workers {least}: there is room for {room} on this machine ({has:g} {kind}s, {each} a worker)"
            raise UsageError(f"{what}. Fix: fewer --workers or --threads, or --ray ADDRESS")
        return least, most


def found_anywhere(options: ModelOptions, revision: str) -> tuple[str, str | None, str | None, str]:
    """Name, revision on the Hub and adapter by which any node finds this model, and the revision it must find."""
    name, adapter = _absolute(options.name), options.family.adapter
    on_hub = name == options.name and name != MINI and not Path(name).is_absolute()
    return name, revision.partition("+")[0] if on_hub else None, adapter and _absolute(adapter), revision


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if name != MINI and path.is_dir() else name


def open_there(options: ModelOptions, name: str, on_hub: str | None, adapter: str | None, revision: str) -> Resizable:
    """In the worker: find the model, which must be the job's own, and open it."""
    family = replace(options.family, adapter=adapter)
    checkpoint = find(replace(options, name=name, revision=on_hub, family=family))
    if checkpoint.revision != revision:
        what = f"{name}: another model than where the job was started ({checkpoint.revision}, there {revision})"
        raise ModelError(f"{what}. Fix: the same files on every node")
    with uncollected():
        from rerank_cli.engine.device import choose_device
        from rerank_cli.engine.session import open_session

    choose_device(options.device)
    if options.threads is None:
        options = replace(options, threads=_cores_per_card())
    return open_session(options, replace(checkpoint, name=options.name))


def _cores_per_card() -> int:
    """This node's cores, divided among its cards: Ray would leave the tokenizer one."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    cards = next((node["Resources"].get("GPU", 1) for node in ray.nodes() if node["NodeID"] == here), 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(cores // max(1, cards)))
