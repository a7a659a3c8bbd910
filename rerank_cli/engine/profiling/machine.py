"""Hardware and library versions, recorded with every benchmark result; row sizes to try on a device."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_ROWS = {
    "cpu": (512, 1024, 2048, 4096, 8192),
    "mps": (2048, 4096, 8192, 16_384, 32_768),
    "cuda": (8192, 16_384, 32_768, 65_536, 131_072),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A device and its host. `capability` is the CPU's instruction set or the GPU's compute capability.

    `cores` are those this process may use, `memory` the device's bytes, None where torch does not report them.
    """

    device: str
    name: str
    capability: str
    threads: int
    cores: int
    memory: int | None
    torch: str


def machine_of(device: torch.device) -> Machine:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(named, platform.processor() or platform.machine())
    capability, memory = torch.backends.cpu.get_cpu_capability(), None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, capability, memory = properties.name, f"{properties.major}.{properties.minor}", properties.total_memory
    return Machine(str(device), name, capability, torch.get_num_threads(), cores, memory, torch.__version__)


def row_sizes(device: torch.device, default: int) -> tuple[int, ...]:
    """Values of `--batch-tokens` to try, the default included, ascending."""
    return tuple(sorted({*_ROWS[device.type], default}))


def is_crowded(device: torch.device) -> bool:
    """Whether peak memory use was so high that larger rows should not be tried."""
    if device.type != "cuda":
        return False
    total: int = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_reserved(device) > 0.8 * total
