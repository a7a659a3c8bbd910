"""Pairs a second: rerank against sentence-transformers' CrossEncoder, FlagEmbedding and rerankers.

Same weights, same text, one run: each system in a process of its own, rounds interleaved, medians compared, tokenizing
included on all sides. `scoring` is one call with all pairs; `job` is a whole job from JSONL to JSONL, start of the
process and load of the model included. Scores of all must agree (fp32: 1e-4). Beside it stands the share of the
machine's own matrix-multiply peak, measured around every round. A table for people, then one JSON line.

    python benchmarks/compare.py --scifact DIR
    python benchmarks/compare.py --size xlm-r-base --tokenizer DIR --text xquad --xquad DIR --queries 20 --depth 5

FlagEmbedding needs an environment of its own, since it does not run on transformers 5: `make bench-peers` makes it,
and `--flagembedding PYTHON` names its interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from data import SIZES, TEXTS, checkpoint

import rerank_cli
from rerank_cli.run.verify import kendall_tau

TOLERANCE = 1e-4
OURS = "rerank"
HERE = Path(__file__).parent
Pairs = list[tuple[str, str]]
Seconds = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="minilm", help="weights of this shape, made here")
    parser.add_argument("--model", help="a checkpoint folder instead")
    parser.add_argument("--tokenizer", type=Path, help="folder of the XLM-R tokenizer, for the shapes of XLM-R")
    parser.add_argument("--text", choices=TEXTS, default="scifact")
    for text in TEXTS:
        parser.add_argument(f"--{text}", type=Path, help=f"where {text} lies")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "fp16", "bf16"])
    parser.add_argument("--batch-size", type=int, default=32, help="of CrossEncoder and rerankers")
    parser.add_argument("--batch-tokens", type=int, help="of rerank; default by device")
    parser.add_argument(
        "--systems", default="rerank,sentence-transformers,rerankers", help="with commas between them; rerank-int8 too"
    )
    parser.add_argument("--flagembedding", metavar="PYTHON", help="interpreter of an environment with FlagEmbedding")
    parser.add_argument("--modes", default="scoring", help="scoring, job, or both with a comma between them")
    args = parser.parse_args()
    args.systems = args.systems.split(",") + (["FlagEmbedding"] if args.flagembedding else [])
    where = getattr(args, args.text)
    if where is None:
        parser.error(f"--text {args.text} needs --{args.text} DIR")
    pairs = TEXTS[args.text](where, args.queries, args.depth)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        args.model = args.model or str(checkpoint(args.size, scratch / "model", args.tokenizer))
        found: dict[str, Any] = {}
        if "scoring" in args.modes:
            found["scoring"] = scoring(args, pairs, scratch)
        if "job" in args.modes:
            found["job"] = jobs(args, pairs, scratch)
    print(orjson.dumps(facts(args, pairs) | found).decode())
    deltas = found.get("scoring", {}).get("worst_delta", {})
    worst = max([0.0, *(delta for system, delta in deltas.items() if system != "rerank-int8")])
    if args.dtype == "fp32" and not worst <= TOLERANCE:
        raise SystemExit(f"scores differ by {worst:.1e}, more than {TOLERANCE}")


def command(args: argparse.Namespace, system: str) -> list[str]:
    interpreter = args.flagembedding if system == "FlagEmbedding" else sys.executable
    words = [interpreter, str(HERE / "peers.py"), system, "--model", args.model, "--device", args.device]
    words += ["--dtype", args.dtype, "--threads", str(args.threads), "--batch-size", str(args.batch_size)]
    return words + (["--batch-tokens", str(args.batch_tokens)] if args.batch_tokens else [])


class Peer:
    """A system that waits for questions."""

    def __init__(self, args: argparse.Namespace, system: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command(args, system), stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment()
        )

    def ask(self, question: dict[str, str]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(map(str, self._process.args))} ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def environment() -> dict[str, str]:
    """Without what would set threads for us, and without a hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def scoring(args: argparse.Namespace, pairs: Pairs, scratch: Path) -> dict[str, Any]:
    """One call with all pairs, after a round that does not count; one system at a time."""
    path = scratch / "pairs.json"
    path.write_text(json.dumps(pairs))
    peers = {system: Peer(args, system) for system in args.systems}
    seconds: Seconds = {system: [] for system in peers}
    scores, peaks = {}, []
    done, nominal = peers[OURS].ask({"costs": str(path)})
    for number in range(args.rounds + 1):
        before = peers[OURS].ask({"peak": ""})
        for system, peer in peers.items():
            answer = peer.ask({"pairs": str(path)})
            scores[system] = np.array(answer["scores"])
            if number:
                seconds[system].append(answer["seconds"])
            if system == OURS and number:
                peaks.append(max(before, peer.ask({"peak": ""})))
    for peer in peers.values():
        peer.close()
    each = list(zip(seconds[OURS], peaks, strict=True))
    worst = {name: float(np.abs(scores[name] - scores[OURS]).max()) for name in peers if name != OURS}
    taus = {name: round(kendall_tau(scores[name], scores[OURS]), 4) for name in worst}
    shares = {
        "peak_gflops": round(statistics.median(peaks) / 1e9, 1),
        "share_of_peak": round(statistics.median(done / spent / peak for spent, peak in each), 4),
        "share_of_peak_plain_model": round(statistics.median(nominal / spent / peak for spent, peak in each), 4),
    }
    show("scoring", args, pairs, seconds)
    done_share, plain_share = shares["share_of_peak"], shares["share_of_peak_plain_model"]
    print(f"  {done_share:.1%} of the machine's peak, {shares['peak_gflops']:,} GFLOP/s, by the work done,")
    print(f"  {plain_share:.1%} by that of the plain model; worst score differences:")
    print("".join(f"  {name} {delta:.1e} (Kendall τ {taus[name]:.4f})" for name, delta in worst.items()) + "\n")
    return figures(pairs, seconds) | shares | {"worst_delta": worst, "kendall_tau": taus}


def jobs(args: argparse.Namespace, pairs: Pairs, scratch: Path) -> dict[str, Any]:
    """From file to file, a new process each time."""
    given, written = scratch / "in.jsonl", scratch / "out.jsonl"
    grouped: dict[str, list[str]] = {}
    for query, passage in pairs:
        grouped.setdefault(query, []).append(passage)
    requests = [{"id": str(n), "query": q, "documents": d} for n, (q, d) in enumerate(grouped.items())]
    given.write_text("".join(json.dumps(request) + "\n" for request in requests))
    words = {system: [*command(args, system), "--job", str(given), str(written)] for system in args.systems}
    words[OURS] = [sys.executable, "-m", "rerank_cli", "run", str(given), "-m", args.model, "-o", str(written), "-q"]
    words[OURS] += ["--device", args.device, "--dtype", args.dtype, "--threads", str(args.threads), "--overwrite"]
    seconds: Seconds = {system: [] for system in words}
    for _ in range(args.rounds):
        for system, parts in words.items():
            begun = time.perf_counter()
            subprocess.run(parts, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
            seconds[system].append(time.perf_counter() - begun)
            written.unlink()
    show("whole job", args, pairs, seconds)
    return figures(pairs, seconds)


def show(what: str, args: argparse.Namespace, pairs: Pairs, seconds: Seconds) -> None:
    print(f"{what}: {len(pairs)} pairs, {args.threads} threads, medians of {args.rounds} interleaved rounds\n")
    ours = statistics.median(seconds[OURS])
    for name, found in seconds.items():
        median = statistics.median(found)
        spread = f"{min(found):.2f} to {max(found):.2f} s"
        print(f"  {name:<24}{len(pairs) / median:>8.1f} pairs/s   {median:>7.2f} s ({spread})   {median / ours:>5.2f}")
    print()


def figures(pairs: Pairs, seconds: Seconds) -> dict[str, Any]:
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "seconds": {name: [round(value, 4) for value in found] for name, found in seconds.items()},
        "pairs_per_second": {name: round(len(pairs) / median, 2) for name, median in medians.items()},
        "ratio": {name: round(median / medians[OURS], 3) for name, median in medians.items() if name != OURS},
    }


def facts(args: argparse.Namespace, pairs: Pairs) -> dict[str, Any]:
    return {
        "benchmark": "compare",
        "size": args.size,
        "text": args.text,
        "pairs": len(pairs),
        "rounds": args.rounds,
        "threads": args.threads,
        "device": args.device,
        "dtype": args.dtype,
        "cpu": platform.processor() or platform.machine(),
        "versions": {"rerank": rerank_cli.__version__, "torch": torch.__version__},
    }


if __name__ == "__main__":
    main()
