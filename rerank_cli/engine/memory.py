"""Keep the C library from handing large blocks back to the system after every operation.

A forward pass on a CPU frees and asks again for the same few megabytes hundreds of times; with glibc's defaults each
time costs page faults. Only glibc is told, anything else is left alone.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_blocks() -> bool:
    """Raise glibc's thresholds for this process; True if it took them (mallopt(3))."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 1 << 26))
    taken = [libc.mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
