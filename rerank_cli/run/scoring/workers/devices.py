"""`--devices`: the worker processes of a run, and how each opens its model. Chooses between them and a Ray cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from rerank_cli.engine.lazy import uncollected
from rerank_cli.engine.limits import find
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.workers.ray_places import RayOptions, RayWorkers
from rerank_cli.run.scoring.workers.transport import Place, Resizable

_ALL = ("all",)
_NAMES = re.compile(r"cpu|mps|cuda(:\d+)?")

Crew = tuple[str, ...] | RayOptions
"""Where the workers of a run are: devices of this machine, or a Ray cluster."""


def crew_opener(crew: Crew) -> Callable[[ModelOptions], Workers]:
    """A function that opens a model in workers there."""
    return RayWorkers(crew) if isinstance(crew, RayOptions) else partial(open_workers, crew)


def device_list(text: str) -> tuple[str, ...]:
    """Parse `cuda:0,cuda:1`, `0,1` (CUDA too), `cpu,cpu` or `all`. One kind only, because scores of two differ."""
    names = tuple(re.sub(r"\A(\d+)\Z", r"cuda:\1", name.strip()) for name in text.split(","))
    if names == _ALL:
        return names
    for name in names:
        if not _NAMES.fullmatch(name):
            expected = "expected numbers, cuda:N, cpu or mps with commas between them, or all"
            raise UsageError(f"--devices {text}: no such device (got {name!r}, {expected})")
    if len({name.partition(":")[0] for name in names}) > 1:
        raise UsageError(f"--devices {text}: scores of different kinds of devices differ. Fix: devices of one kind")
    return names


def open_workers(devices: Sequence[str], options: ModelOptions) -> Workers:
    """One worker for each device, all loading at once. The model is resolved, and downloaded if needed, once."""
    checkpoint = find(options)
    if devices == _ALL:
        devices = _all_cuda()
    each = [replace(options, device=device) for device in devices]
    return Workers([Place(one.device, partial(_open_one, one, checkpoint, len(each))) for one in each])


def _all_cuda() -> list[str]:
    """Every CUDA device that torch sees, counted by another process because this one does not import torch."""
    code = "import torch; print(torch.cuda.device_count())"
    command = [sys.executable, "-P", "-c", code]
    counted = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if counted.returncode:
        raise ModelError("--devices all: torch cannot be imported. Fix: python -c 'import torch' shows the error")
    names = [f"cuda:{number}" for number in range(int(counted.stdout.split()[-1]))]
    if not names:
        raise UsageError("--devices all: torch sees no CUDA device. Fix: --devices cpu,cpu for two workers on the CPU")
    return names


def _open_one(options: ModelOptions, checkpoint: Checkpoint, of: int) -> Resizable:
    """In the worker: open the model with 1/`of` of the cores, unless --threads is given."""
    with uncollected():
        import torch

        from rerank_cli.engine.device import choose_device
        from rerank_cli.engine.session import open_session

    choose_device(options.device, "--devices")
    if options.threads is None and of > 1:
        options = replace(options, threads=max(1, torch.get_num_threads() // of))
    return open_session(options, checkpoint)
