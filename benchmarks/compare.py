"""Pairs a second: rerank's engine against sentence-transformers' CrossEncoder, same weights, same text, one run.

Rounds are interleaved and the medians compared, tokenizing included on both sides; scores must agree to 1e-4.
A table for people, then one JSON line.

    python benchmarks/compare.py --scifact path/to/scifact
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import orjson
import torch
from data import minilm, scifact_pairs
from sentence_transformers import CrossEncoder

import rerank_cli
from rerank_cli.engine.contract import ModelOptions
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.session import open_session

TOLERANCE = 1e-4
Pairs = Sequence[tuple[str, str]]
Score = Callable[[Pairs], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact in BEIR layout with its BM25 run")
    parser.add_argument("--model", help="a checkpoint folder; default: the MiniLM encoder with a random head")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32, help="of CrossEncoder")
    parser.add_argument("--batch-tokens", type=int, help="of rerank; default by device")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pairs = scifact_pairs(args.scifact, args.queries, args.depth)
    with tempfile.TemporaryDirectory() as scratch:
        model = args.model or str(minilm(Path(scratch)))
        options = ModelOptions(model, None, args.device, "fp32", 512, batch_tokens=args.batch_tokens)
        systems = {
            "rerank": ours(options),
            "sentence-transformers": theirs(model, args.device, args.batch_size),
        }
        seconds, scores = measure(systems, pairs, args.rounds)
    report(args, pairs, seconds, scores)


def ours(options: ModelOptions) -> Score:
    session = open_session(options)

    def score(pairs: Pairs) -> np.ndarray:
        queries, passages = zip(*pairs, strict=True)
        return session.score(session.prepare(PairTexts(queries, passages, [0] * len(pairs))))

    return score


def theirs(model: str, device: str, batch_size: int) -> Score:
    encoder = CrossEncoder(model, max_length=512, device=device, activation_fn=torch.nn.Identity())
    return lambda pairs: encoder.predict(list(pairs), batch_size=batch_size, show_progress_bar=False)


def measure(
    systems: dict[str, Score], pairs: Pairs, rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Seconds of each round and the last scores, after one round that does not count; every system in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    scores: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        for name, score in systems.items():
            begun = time.perf_counter()
            scores[name] = score(pairs)
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return seconds, scores


def report(
    args: argparse.Namespace, pairs: Pairs, seconds: dict[str, list[float]], scores: dict[str, np.ndarray]
) -> None:
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    delta = float(np.abs(scores["rerank"] - scores["sentence-transformers"]).max())
    ratio = medians["sentence-transformers"] / medians["rerank"]
    print(f"{len(pairs)} pairs, {args.threads} threads, medians of {args.rounds} interleaved rounds\n")
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f} s"
        print(f"  {name:<24}{len(pairs) / median:>8.1f} pairs/s   {median:>6.2f} s ({spread})")
    print(f"\n  ratio {ratio:.2f}, worst score difference {delta:.1e}\n")
    figures = {
        "benchmark": "compare",
        "pairs": len(pairs),
        "rounds": args.rounds,
        "threads": args.threads,
        "device": args.device,
        "cpu": platform.processor() or platform.machine(),
        "seconds": {name: [round(value, 4) for value in found] for name, found in seconds.items()},
        "pairs_per_second": {name: round(len(pairs) / median, 2) for name, median in medians.items()},
        "ratio": round(ratio, 3),
        "worst_delta": delta,
        "versions": {"rerank": rerank_cli.__version__, "torch": torch.__version__},
    }
    print(orjson.dumps(figures).decode())
    if not delta <= TOLERANCE:
        raise SystemExit(f"scores differ by {delta:.1e}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()
