"""`--dry-run`: what a training run would take, from steps that are measured and not kept."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.data.store import Groups
from rerank_cli.training.learner import Learner
from rerank_cli.training.run.evaluation import HeldOut

_SAMPLE = 16  # batches whose tokens are counted
_MEASURED = 2  # of them that are computed, after one that is not counted


def estimate(learner: Learner, groups: Groups, held_out: HeldOut | None, steps: int) -> dict[str, Any]:
    """Figures of a run of this many steps. Computes gradients of a few batches, the longest groups among them.

    `memory_bytes` is the largest amount in use: on CUDA that of the device, else that of the process.
    """
    count = min(steps, groups.steps_per_epoch)
    sampled = [groups.batch(step) for step in np.linspace(0, count - 1, min(_SAMPLE, count)).astype(int).tolist()]
    tokens = [int(learner.trainer.tokenizer.tokenize(batch).tokens.sum()) for batch in sampled]
    longest = groups.longest(len(sampled[0]))
    begun = time.monotonic()
    learner.rehearse(longest)
    longest_seconds = time.monotonic() - begun
    _seconds(learner, sampled[0])
    measured = sampled[:: max(1, len(sampled) // _MEASURED)][:_MEASURED]
    seconds = sum(_seconds(learner, batch) for batch in measured)
    rate = sum(tokens[sampled.index(batch)] for batch in measured) / seconds
    mean = sum(tokens) / len(tokens)
    found: dict[str, Any] = {
        "groups": len(groups),
        "steps": steps,
        "tokens_per_step": round(mean),
        "tokens": round(mean * steps),
        "tokens_per_second": round(rate),
        "training_seconds": round(mean * steps / rate, 1),
        "longest_step_seconds": round(longest_seconds, 2),
        "longest_step_tokens": int(learner.trainer.tokenizer.tokenize(longest).tokens.sum()),
        "memory_bytes": _memory(learner.opened.trainable.device),
        "out_of_memory": learner.trainer.out_of_memory,
    }
    if held_out:
        found["evaluation_pairs"] = sum(len(group.passages) for group in held_out.groups)
        found["evaluation_seconds"] = round(_evaluation_seconds(learner, held_out), 1)
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The figures for people."""
    minutes = found["training_seconds"] / 60
    text = [
        f"{found['groups']:,} groups, {found['steps']:,} steps, {found['tokens']:,} tokens",
        f"about {minutes:,.1f} minutes at {found['tokens_per_second']:,} tokens a second",
        f"the longest step: {found['longest_step_tokens']:,} tokens, {found['longest_step_seconds']:.1f} s, "
        f"{found['memory_bytes'] / 2**30:.2f} GiB of memory",
    ]
    if found["out_of_memory"]:
        text.append("memory ran out in it: batches will be computed in parts")
    if "evaluation_seconds" in found:
        text.append(f"an evaluation: {found['evaluation_pairs']:,} pairs, about {found['evaluation_seconds']:,.0f} s")
    return text


def _seconds(learner: Learner, batch: Sequence[DrawnGroup]) -> float:
    """How long the gradients of a batch take, which are then dropped."""
    begun = time.monotonic()
    learner.trainer.gradients(0, batch, batch)
    learner.trainer.optimizer.clear()
    return time.monotonic() - begun


def _evaluation_seconds(learner: Learner, held_out: HeldOut) -> float:
    """From a tenth of the groups, at most 20."""
    part = held_out.groups[: max(1, min(20, len(held_out.groups) // 10))]
    begun = time.monotonic()
    for _ in learner.scores(part, lambda: False):
        pass
    pairs = sum(len(group.passages) for group in part)
    return (time.monotonic() - begun) * sum(len(group.passages) for group in held_out.groups) / pairs


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
