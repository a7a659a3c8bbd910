"""Where a model runs and in which precision, and sizes that suit the place."""

from __future__ import annotations

import ctypes
import platform
import re

import torch

from rerank_cli.choices import Quantize
from rerank_cli.engine.contract import Sizes
from rerank_cli.errors import UsageError
from rerank_cli.models.quantization.fp8 import refuse_without_float8
from rerank_cli.models.quantization.int8 import refuse_without_int8

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_SMALL_MODEL = 50_000_000


def choose_device(name: str, flag: str = "--device") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; a device that is not there is a UsageError about the flag."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UsageError(f"{flag} {name}: no such device (expected auto, cpu, cuda, cuda:N or mps)")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{flag} {name}: not here (torch sees {torch.cuda.device_count()} CUDA devices)")
    if device.type == "mps" and not _has_mps():
        raise UsageError(f"{flag} mps: not available on this machine")
    return device


def choose_dtype(
    name: str, device: torch.device, half: str = "fp16", quantize: Quantize = Quantize.NONE
) -> torch.dtype:
    """`auto` is the model's own half precision on CUDA, and fp32 elsewhere.

    Float8 products come out in bf16, those of 8-bit integers in fp32.
    """
    if quantize is Quantize.FP8:
        refuse_without_float8(device)
        if name not in {"auto", "bf16"}:
            raise UsageError(f"--quantize fp8 works in bf16 (got --dtype {name}). Fix: --dtype bf16")
        name = "bf16"
    if quantize is Quantize.INT8:
        refuse_without_int8(device)
        if name not in {"auto", "fp32"}:
            raise UsageError(f"--quantize int8 works beside fp32 (got --dtype {name}). Fix: --dtype fp32")
    if name == "auto":
        name = half if device.type == "cuda" else "fp32"
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    return next(name for name, value in DTYPES.items() if value == dtype)


def sizes_for(device: torch.device, parameters: int) -> Sizes:
    """Rows that fit a CPU's caches or fill a GPU; chunks that a slow device finishes in about half a minute."""
    if device.type == "cuda":
        return Sizes(batch_tokens=32_768, chunk_pairs=8_192)  # tokens: by model and memory, see row_size
    if device.type == "mps":
        return Sizes(batch_tokens=8_192, chunk_pairs=1_024)
    return Sizes(batch_tokens=2_048, chunk_pairs=1_024 if parameters < _SMALL_MODEL else 256)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_blocks() -> bool:
    """Raise glibc's thresholds for this process; True if it took them (mallopt(3))."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 1 << 26))
    taken = [libc.mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
