"""What decoder rerankers gain: shared beginnings, fewer layers, no vocabulary logits. Random weights, fp32, CPU.

    python benchmarks/decoders.py sharing    pairs/s with and without the shared beginning of a query's prompts
    python benchmarks/decoders.py cutoff     pairs/s of half the layers against all of them
    python benchmarks/decoders.py memory     peak memory with a vocabulary of 256,000 and 10,000 tokens in flight

Rounds are interleaved, figures are medians. A table for people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import transformers as tf
from transformers import PreTrainedModel

from rerank_cli.engine.device import keep_freed_blocks
from rerank_cli.engine.rows.plan import pack_causal
from rerank_cli.engine.scorer import Scorer
from rerank_cli.models.answer_head import AnswerHead
from rerank_cli.models.attention.packed import PACKED, register
from rerank_cli.models.decoders.causal import PackedDecoder
from rerank_cli.models.decoders.layered import Cutoffs, LayeredDecoder
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import PairTemplate

PREFIX, CANDIDATES = 90, 100
LENGTHS = (32, 64, 128, 256)
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sharing", "cutoff", "memory", "memory-child"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_blocks()
    register()
    torch.manual_seed(0)
    if arguments.what.startswith("memory"):
        memory() if arguments.what == "memory" else memory_child()
    else:
        {"sharing": sharing, "cutoff": cutoff}[arguments.what](arguments)


def qwen3(layers: int = 6) -> PreTrainedModel:
    """6 × 512, 8 heads of 64 over 4 key heads."""
    return _built(
        tf.Qwen3Config(
            vocab_size=32_000, hidden_size=512, intermediate_size=1536, num_hidden_layers=layers,
            num_attention_heads=8, num_key_value_heads=4, head_dim=64, attn_implementation=PACKED,
        )
    )  # fmt: skip


def gemma() -> PreTrainedModel:
    """6 × 512, 8 heads of 64 over one key head, a wide feed-forward."""
    return _built(
        tf.GemmaConfig(
            vocab_size=32_000, hidden_size=512, intermediate_size=4096, num_hidden_layers=6,
            num_attention_heads=8, num_key_value_heads=1, head_dim=64, attn_implementation=PACKED,
        )
    )  # fmt: skip


def _built(config: tf.PretrainedConfig) -> PreTrainedModel:
    return tf.AutoModel.from_config(config, attn_implementation=PACKED).eval().requires_grad_(False)


def readout(width: int) -> AnswerHead:
    return AnswerHead(torch.randn(1, width))


def rows(length: int, budget: int, *, share: bool, spread: float = 0.5) -> list[TokenRow]:
    """One query's candidates of about this many tokens (evenly between half and one and a half times as many)."""
    rng = np.random.default_rng(length)
    prefix = rng.integers(5, 30_000, PREFIX).astype(np.int32)
    sizes = np.linspace(length * (1 - spread), length * (1 + spread), CANDIDATES).round().astype(int)[::-1]
    passages = [rng.integers(5, 30_000, size).astype(np.int32) for size in sizes]
    empty = np.zeros(0, np.int32)
    template = PairTemplate(empty, empty, empty)
    made, start = [], 0
    while start < len(passages):
        stop, spent = start, PREFIX if share else 0
        while stop < len(passages) and (
            stop == start or spent + len(passages[stop]) + (0 if share else PREFIX) <= budget
        ):
            spent += len(passages[stop]) + (0 if share else PREFIX)
            stop += 1
        groups = np.zeros(stop - start, np.int64) if share else np.arange(stop - start)
        made.append(pack_causal([(prefix, passage) for passage in passages[start:stop]], template, groups))
        start = stop
    return made


def scored(model: PackedDecoder | LayeredDecoder, made: Sequence[TokenRow]) -> np.ndarray:
    return np.concatenate([model.score(row).numpy() for row in made])


def interleaved(
    ways: dict[str, Callable[[], np.ndarray]], rounds: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Median seconds of each way, and what it gave. One round goes first uncounted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {name: way() for name, way in ways.items()}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in seconds.items()}, results


def sharing(arguments: argparse.Namespace) -> None:
    figures = []
    print(f"{CANDIDATES} candidates behind {PREFIX} tokens, {torch.get_num_threads()} threads")
    print(f"{'model':<6} {'tokens':>6} {'alone':>10} {'shared':>10} {'ratio':>6} {'worst |Δ|':>10}")
    for name, backbone in (("qwen3", qwen3()), ("gemma", gemma())):
        model = PackedDecoder(backbone, CPU, readout(512))
        for length in LENGTHS:
            ways = {share: rows(length, arguments.batch_tokens, share=share) for share in (False, True)}
            jobs = {str(share): partial(scored, model, made) for share, made in ways.items()}
            seconds, results = interleaved(jobs, arguments.rounds)
            alone, shared = (CANDIDATES / seconds[key] for key in ("False", "True"))
            worst = float(np.abs(results["True"] - results["False"]).max())
            print(f"{name:<6} {length:>6} {alone:>8.1f}/s {shared:>8.1f}/s {shared / alone:>6.2f} {worst:>10.1e}")
            figures.append(
                {
                    "model": name,
                    "tokens": length,
                    "alone": alone,
                    "shared": shared,
                    "ratio": shared / alone,
                    "worst": worst,
                }
            )
    print(json.dumps({"benchmark": "sharing", "threads": torch.get_num_threads(), "figures": figures}))


def cutoff(arguments: argparse.Namespace) -> None:
    backbone = qwen3(layers=12)
    heads = [readout(512)]
    made = rows(128, arguments.batch_tokens, share=True)
    full, half = (LayeredDecoder(backbone, CPU, Cutoffs((top,), 12), heads) for top in (12, 6))
    seconds, _ = interleaved({"12": lambda: scored(full, made), "6": lambda: scored(half, made)}, arguments.rounds)
    ratio = seconds["12"] / seconds["6"]
    for layers, took in seconds.items():
        print(f"{layers:>2} layers {CANDIDATES / took:8.1f} pairs/s")
    print(f"ratio {ratio:.2f}")
    print(json.dumps({"benchmark": "cutoff", "seconds": seconds, "ratio": ratio}))


def memory() -> None:
    """In a process of its own: the peak is the process's."""
    command = [sys.executable, __file__, "memory-child"]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def memory_child() -> None:
    config = tf.GemmaConfig(
        vocab_size=256_000, hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32,
    )  # fmt: skip
    model = PackedDecoder(_built(config), CPU, readout(128))
    before = _peak()
    made = rows(100, 10_000, share=False, spread=0.0)
    scores = Scorer(model)._run(model, made[0])
    assert torch.isfinite(scores).all()
    peak, logits = _peak(), made[0].tokens * 256_000 * 4
    print(
        f"{made[0].tokens} tokens in flight: peak {peak / 1e6:,.0f} MB, of which {before / 1e6:,.0f} MB before scoring"
    )
    print(f"their logits over the vocabulary would take {logits / 1e6:,.0f} MB")
    print(json.dumps({"benchmark": "memory", "tokens": made[0].tokens, "peak": peak, "before": before}))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
