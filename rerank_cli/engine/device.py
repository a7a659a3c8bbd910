"""The device and precision that a model runs in, and default sizes for the device."""

from __future__ import annotations

import ctypes
import os
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
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # parameters of mallopt(3)


def choose_device(name: str, flag: str = "--device") -> torch.device:
    """The device of this name (`auto`: CUDA, else MPS, else CPU). UsageError about `flag` if it is not available."""
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UsageError(f"{flag} {name}: no such device (expected auto, cpu, cuda, cuda:N or mps)")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (found := torch.cuda.device_count()):
        raise UsageError(f"{flag} {name}: {_without_card(flag, found)}")
    if device.type == "mps" and not has_mps:
        raise UsageError(f"{flag} mps: torch finds no Apple GPU. Fix: {flag} cpu")
    return device


def _without_card(flag: str, found: int) -> str:
    """Why a CUDA device is not there, if torch finds this many, and what to do."""
    if found:
        return f"torch finds {found} CUDA device{'s' * (found > 1)}, numbered from 0. Fix: {flag} cuda:{found - 1}"
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return f"this torch ({torch.__version__}) is built without CUDA. Fix: {flag} cpu, or install torch with CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"torch finds no CUDA device (CUDA_VISIBLE_DEVICES is {visible!r}). Fix: {flag} cpu, or change that"
    return f"torch finds no CUDA device. Fix: {flag} cpu; nvidia-smi shows whether there is one and its driver works"


def choose_dtype(
    name: str, device: torch.device, half: str = "fp16", quantize: Quantize = Quantize.NONE
) -> torch.dtype:
    """`auto` is the model's own half precision on CUDA, and fp32 elsewhere; bf16 beside fp8.

    Raises UsageError for a dtype that does not go with `quantize`: fp8 goes with bf16, int8 with fp32 and bf16.
    """
    if quantize is Quantize.FP8:
        refuse_without_float8(device)
        name = _beside("fp8", name, ("bf16",))
    elif quantize is Quantize.INT8:
        refuse_without_int8(device)
        name = _beside("int8", name, ("fp32", "bf16"))
    if name == "auto":
        name = half if device.type == "cuda" else "fp32"
    return DTYPES[name]


def _beside(quantize: str, name: str, possible: tuple[str, ...]) -> str:
    """The dtype of what is not quantized."""
    if name not in {"auto", *possible}:
        needed = f"--quantize {quantize} needs {' or '.join(possible)} (got --dtype {name})"
        raise UsageError(f"{needed}. Fix: --dtype {possible[0]}")
    return possible[0] if name == "auto" else name


def dtype_name(dtype: torch.dtype) -> str:
    return next(name for name, value in DTYPES.items() if value == dtype)


def sizes_for(device: torch.device, parameters: int) -> Sizes:
    """Rows that fit a CPU's caches or fill a GPU; chunks that a slow device finishes in about half a minute."""
    if device.type == "cuda":
        return Sizes(batch_tokens=32_768, chunk_pairs=8_192)  # row_size chooses the tokens by model and memory
    if device.type == "mps":
        return Sizes(batch_tokens=8_192, chunk_pairs=1_024)
    return Sizes(batch_tokens=2_048, chunk_pairs=1_024 if parameters < _SMALL_MODEL else 256)


def keep_freed_blocks() -> bool:
    """Make glibc keep freed memory for reuse: raise its mallopt(3) thresholds. True if it accepted all of them."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 1 << 26))
    accepted = [libc.mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)
