"""What `accelerate launch` asks for in the environment."""

import pytest

from rerank_cli.errors import UsageError
from rerank_cli.training.launcher import ShardOptions, wanted_sharding, wants_bf16

# What accelerate 1.15 sets for `accelerate launch --use_fsdp --fsdp_version 2` without other flags.
PLAIN = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_MIN_NUM_PARAMS": "100000000",
    "FSDP_FORWARD_PREFETCH": "false",
    "FSDP_USE_ORIG_PARAMS": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "false",
}


def test_without_a_wish_nothing_is_sharded():
    assert wanted_sharding({}) is None
    assert wanted_sharding({"ACCELERATE_USE_FSDP": "false", "FSDP_VERSION": "1"}) is None


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({}, ShardOptions(in_turn=True)),
        ({"FSDP_RESHARD_AFTER_FORWARD": "false"}, ShardOptions(reshard=False, in_turn=True)),
        ({"FSDP_OFFLOAD_PARAMS": "True"}, ShardOptions(offload=True, in_turn=True)),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, ShardOptions(recompute=True, in_turn=True)),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}, ShardOptions()),
        ({"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}, ShardOptions(in_turn=True)),
        ({"FSDP_AUTO_WRAP_POLICY": "NO_WRAP"}, ShardOptions(layers=(), in_turn=True)),
        ({"FSDP_TRANSFORMER_CLS_TO_WRAP": "A, B"}, ShardOptions(layers=("A", "B"), in_turn=True)),
        ({"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}, ShardOptions(in_turn=True)),
        ({"FSDP_BACKWARD_PREFETCH": "BACKWARD_PRE"}, ShardOptions(in_turn=True)),
    ],
)
def test_what_is_asked_for_is_done(more, options):
    assert wanted_sharding(PLAIN | more) == options


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED: rerank train has no DeepSpeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "rerank train has no Megatron-LM"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "rerank train has no tensor and context parallelism"),
        ({"FSDP_VERSION": "1"}, "FSDP_VERSION 1: expected 2. Fix: accelerate launch --fsdp_version 2"),
        ({"FSDP_SHARDING_STRATEGY": "HYBRID_SHARD"}, "FSDP_SHARDING_STRATEGY HYBRID_SHARD: cannot be done"),
        ({"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, "Fix: FULL_STATE_DICT"),
        ({"FSDP_BACKWARD_PREFETCH": "BACKWARD_POST"}, "Fix: leave it out"),
        ({"FSDP_FORWARD_PREFETCH": "true"}, "FSDP_FORWARD_PREFETCH true: cannot be done. Fix: false"),
        ({"FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "true"}, "Fix: false"),
        ({"FSDP_IGNORED_MODULES": ".*head"}, "FSDP_IGNORED_MODULES .*head: cannot be done"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "SIZE_BASED_WRAP: expected TRANSFORMER_BASED_WRAP or NO_WRAP"),
        ({"FSDP_OFFLOAD_PARAMS": "maybe"}, "FSDP_OFFLOAD_PARAMS maybe: expected true or false"),
    ],
)
def test_what_cannot_be_done_is_refused(more, message):
    with pytest.raises(UsageError) as refused:
        wanted_sharding(PLAIN | more)
    assert message in str(refused.value)


def test_mixed_precision_is_bf16_or_none():
    name = "ACCELERATE_MIXED_PRECISION"
    assert not wants_bf16({}, "auto")
    assert not wants_bf16({name: "no"}, "fp32")
    assert wants_bf16({name: "bf16"}, "auto")
    for value, dtype in (("fp16", "auto"), ("fp8", "auto"), ("bf16", "fp32")):
        with pytest.raises(UsageError, match=name):
            wants_bf16({name: value}, dtype)
