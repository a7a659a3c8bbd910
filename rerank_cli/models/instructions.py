"""Instructions of this processor that decide how products are computed, as torch reports them.

Where a version of torch does not report one, it counts as missing.
"""

from __future__ import annotations

import torch


def has_vnni() -> bool:
    """8-bit integer products of AVX-512 VNNI; torch does not report VNNI without AVX-512."""
    return _reported("_is_vnni_supported")


def has_amx() -> bool:
    """Matrix products of AMX, in bf16 and 8-bit integers."""
    return _reported("_is_amx_tile_supported")


def has_bf16() -> bool:
    """bf16 products of AVX-512-BF16 or AMX."""
    return _reported("_is_avx512_bf16_supported") or has_amx()


def _reported(name: str) -> bool:
    return hasattr(torch.cpu, name) and bool(getattr(torch.cpu, name)())
