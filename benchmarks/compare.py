"""Pairs a second: rerank's engine against sentence-transformers' CrossEncoder, same weights, same text, one run.

Each in a process of its own, rounds interleaved, medians compared, tokenizing included on both sides; fp32 scores must
agree to 1e-4.
A table for people, then one JSON line.

    python benchmarks/compare.py --scifact path/to/scifact
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import orjson
import torch
from data import minilm, scifact_pairs

import rerank_cli
from rerank_cli.engine.contract import ModelOptions
from rerank_cli.engine.device import DTYPES
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
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "fp16", "bf16"])
    parser.add_argument("--batch-size", type=int, default=32, help="of CrossEncoder")
    parser.add_argument("--batch-tokens", type=int, help="of rerank; default by device")
    args = parser.parse_args()
    pairs = scifact_pairs(args.scifact, args.queries, args.depth)
    with tempfile.TemporaryDirectory() as scratch:
        args.model = args.model or str(minilm(Path(scratch)))
        with ExitStack() as stack:
            systems = {name: stack.enter_context(at_work(name, args)) for name in SYSTEMS}
            seconds, scores = measure(systems, pairs, args.rounds)
    report(args, pairs, seconds, scores)


def ours(args: argparse.Namespace) -> Score:
    options = ModelOptions(args.model, None, args.device, args.dtype, 512, batch_tokens=args.batch_tokens)
    session = open_session(options)

    def score(pairs: Pairs) -> np.ndarray:
        queries, passages = zip(*pairs, strict=True)
        return session.score(session.prepare(PairTexts(queries, passages, [0] * len(pairs))))

    return score


def theirs(args: argparse.Namespace) -> Score:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(
        args.model,
        max_length=512,
        device=args.device,
        activation_fn=torch.nn.Identity(),
        model_kwargs={"dtype": DTYPES[args.dtype]},
    )
    return lambda pairs: encoder.predict(list(pairs), batch_size=args.batch_size, show_progress_bar=False)


SYSTEMS: dict[str, Callable[[argparse.Namespace], Score]] = {"rerank": ours, "sentence-transformers": theirs}


@contextmanager
def at_work(name: str, args: argparse.Namespace) -> Iterator[Connection]:
    """A system in a process of its own, so that neither works in the other's memory or settings."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(name, args, there), daemon=True)
    process.start()
    yield here
    here.send(None)
    process.join()


def work(name: str, args: argparse.Namespace, pipe: Connection) -> None:
    """Score what comes through the pipe and answer with the seconds it took and the scores."""
    torch.set_num_threads(args.threads)
    score = SYSTEMS[name](args)
    while (pairs := pipe.recv()) is not None:
        begun = time.perf_counter()
        scores = score(pairs)
        pipe.send((time.perf_counter() - begun, scores))


def measure(
    systems: dict[str, Connection], pairs: Pairs, rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Seconds of each round and the last scores, after one round that does not count; one system at a time."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    scores: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        for name, pipe in systems.items():
            pipe.send(pairs)
            spent, scores[name] = pipe.recv()
            if number:
                seconds[name].append(spent)
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
        "dtype": args.dtype,
        "cpu": platform.processor() or platform.machine(),
        "seconds": {name: [round(value, 4) for value in found] for name, found in seconds.items()},
        "pairs_per_second": {name: round(len(pairs) / median, 2) for name, median in medians.items()},
        "ratio": round(ratio, 3),
        "worst_delta": delta,
        "versions": {"rerank": rerank_cli.__version__, "torch": torch.__version__},
    }
    print(orjson.dumps(figures).decode())
    if args.dtype == "fp32" and not delta <= TOLERANCE:
        raise SystemExit(f"scores differ by {delta:.1e}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()
