"""Memory of the host for something besides the run: how much there is, and giving it back afterwards."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")  # of a container; cgroup v2


def spare_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = _GROUP) -> int | None:
    """Bytes that can be allocated without swapping, within the limit of the container; None where that is unknown."""
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit = _number(group / "memory.max")
    used = _number(group / "memory.current")
    if limit is not None and used is not None:
        stat = (group / "memory.stat").read_text().splitlines() if (group / "memory.stat").is_file() else []
        cached = sum(int(line.split()[1]) for line in stat if line.startswith("file "))  # the kernel drops these
        found.append(max(0, limit - used + cached))
    return min(found, default=None)


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None


def give_back() -> None:
    """Return freed blocks to the system, which `device.keep_freed_blocks` would keep for reuse. Only with glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
