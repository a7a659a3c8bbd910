"""What `accelerate launch` asks for, which it passes in the environment: sharding by FSDP 2, and bf16.

Source: accelerate 1.15, `utils/launch.py` and `FullyShardedDataParallelPlugin`. What cannot be done is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rerank_cli.errors import UsageError

_TRUE, _FALSE = frozenset(("1", "true", "yes", "y", "t", "on")), frozenset(("0", "false", "no", "n", "f", "off", ""))
_OTHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
           "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor and context parallelism"}  # fmt: skip
_EXPECTED = {  # values that are what happens; accelerate passes the first of several by itself
    "FSDP_SHARDING_STRATEGY": (("FULL_SHARD", "1"), "FSDP_RESHARD_AFTER_FORWARD"),
    "FSDP_STATE_DICT_TYPE": (("FULL_STATE_DICT",), "FULL_STATE_DICT: checkpoints are for any number of processes"),
    "FSDP_BACKWARD_PREFETCH": (("BACKWARD_PRE",), "leave it out"),
    "FSDP_FORWARD_PREFETCH": (("FALSE",), "false"),
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": (("FALSE",), "false"),
    "FSDP_IGNORED_MODULES": ((), "leave it out"),
}
_WRAP = "FSDP_AUTO_WRAP_POLICY"
EFFICIENT_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """How a model is sharded.

    With `reshard`, what was gathered for a layer's forward pass is freed until the backward pass. With `offload`, the
    shards and the optimizer are in the memory of the host. `layers` are class names of the layers that are gathered
    one after the other: None for all layers, empty to gather the whole model at once. With `recompute`, activations
    are computed again for the backward pass. With `in_turn`, the processes of a machine load the model one after the
    other.
    """

    reshard: bool = True
    offload: bool = False
    layers: tuple[str, ...] | None = None
    recompute: bool = False
    in_turn: bool = False


def wanted_sharding(environ: Mapping[str, str]) -> ShardOptions | None:
    """The sharding that the environment asks for, None if it asks for none. Raises UsageError."""
    for name, what in _OTHERS.items():
        if _flag(environ, name, False):
            fix = "accelerate launch --use_fsdp --fsdp_version 2, or torchrun"
            raise UsageError(f"{name}: rerank train has no {what}. Fix: {fix}")
    if not _flag(environ, "ACCELERATE_USE_FSDP", False):
        return None
    version = environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise UsageError(f"FSDP_VERSION {version}: expected 2. Fix: accelerate launch --fsdp_version 2")
    for name, (expected, fix) in _EXPECTED.items():
        value = environ.get(name)
        if value and value.upper() not in expected:
            raise UsageError(f"{name} {value}: cannot be done. Fix: {fix}")
    return ShardOptions(
        _flag(environ, "FSDP_RESHARD_AFTER_FORWARD", True),
        _flag(environ, "FSDP_OFFLOAD_PARAMS", False),
        _layers(environ),
        _flag(environ, "FSDP_ACTIVATION_CHECKPOINTING", False),
        _flag(environ, EFFICIENT_LOADING, False),
    )


def wants_bf16(environ: Mapping[str, str], dtype: str) -> bool:
    """Whether the environment asks for products in bf16. `dtype` is that of the flags. Raises UsageError."""
    name = "ACCELERATE_MIXED_PRECISION"
    value = environ.get(name, "no").lower()
    if value in ("no", ""):
        return False
    if value != "bf16":
        raise UsageError(f"{name} {value}: expected no or bf16. Fix: accelerate launch --mixed_precision bf16")
    if dtype not in ("auto", "bf16"):
        raise UsageError(f"{name} bf16 and --dtype {dtype}: give one of them")
    return True


def _layers(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    policy, classes = environ.get(_WRAP, "").upper(), environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    if policy == "NO_WRAP":
        return ()
    if policy not in ("", "TRANSFORMER_BASED_WRAP"):
        raise UsageError(f"{_WRAP} {policy}: expected TRANSFORMER_BASED_WRAP or NO_WRAP. Fix: leave it out")
    return tuple(name.strip() for name in classes.split(",") if name.strip()) or None


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    value = environ.get(name)
    if value is None:
        return default
    if value.lower() not in _TRUE | _FALSE:
        raise UsageError(f"{name} {value}: expected true or false")
    return value.lower() in _TRUE
