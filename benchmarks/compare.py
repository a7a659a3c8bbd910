"""Pairs a second: rerank against sentence-transformers' CrossEncoder, FlagEmbedding and rerankers.

Same weights, same text, one run: each system in a process of its own, rounds interleaved, medians compared, tokenizing
included on all sides. `scoring` is one call with all pairs; `job` is a whole job from JSONL to JSONL, start of the
process and load of the model included. Beside the speeds stand the largest difference from our scores (of fp32, unless
--dtype says otherwise) and Kendall's τ of the rankings, per query and averaged; fp32 systems must agree within 1e-4.
Below stands, for ours, the share of the machine's own matrix-multiply peak in that precision, measured around every
round. A table for people, then
one JSON line.

    python benchmarks/compare.py --scifact DIR
    python benchmarks/compare.py --size xlm-r-base --tokenizer DIR --text xquad --xquad DIR --queries 20 --depth 5
    python benchmarks/compare.py --scifact DIR --peers build/peers/bin/python --systems all

`--systems` takes names of the table in `peers.py`, or `all` of them. Other precisions are rerank-bf16, rerank-int8,
rerank-int8-bf16 and sentence-transformers-bf16. FlagEmbedding and CrossEncoder's other back ends (onnx, onnx-int8: ONNX
Runtime; openvino, openvino-bf16: OpenVINO) do not run on transformers 5. They need an environment of their own, which
`make bench-peers` makes, and whose interpreter `--peers PYTHON` names. A system that fails, or gives no answer within
--patience, is listed with its reason, and the others go on. All systems are in memory at once. In `job`, the time of
the back ends contains the export of the model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson
import torch
from data import SIZES, TEXTS, checkpoint
from peers import SYSTEMS

import rerank_cli
from rerank_cli.run.comparison import Difference, difference

TOLERANCE = 1e-4
OURS = "rerank"
USUAL = ("rerank", "sentence-transformers", "rerankers")
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
    parser.add_argument("--systems", help="with commas between them, or all [default: the fp32 ones of the README]")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of the environment of make bench-peers")
    parser.add_argument("--patience", type=int, default=900, help="seconds to wait for an answer")
    parser.add_argument("--modes", default="scoring", help="scoring, job, or both with a comma between them")
    args = parser.parse_args()
    args.systems = chosen(args.systems, args.peers, parser.error)
    where = getattr(args, args.text)
    if where is None:
        parser.error(f"--text {args.text} needs --{args.text} DIR")
    pairs = TEXTS[args.text](where, args.queries, args.depth)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        args.size = Path(args.model).name if args.model else args.size
        args.model = args.model or str(checkpoint(args.size, scratch / "model", args.tokenizer))
        found: dict[str, Any] = {}
        if "scoring" in args.modes:
            found["scoring"] = scoring(args, pairs, scratch)
            args.systems = [system for system in args.systems if system not in found["scoring"]["failed"]]
        if "job" in args.modes:
            found["job"] = jobs(args, pairs, scratch)
    print(orjson.dumps(facts(args, pairs) | found).decode())
    deltas = found.get("scoring", {}).get("worst_delta", {})
    worst = max([0.0, *(delta for system, delta in deltas.items() if SYSTEMS[system].precision in (None, "fp32"))])
    if args.dtype == "fp32" and not worst <= TOLERANCE:
        raise SystemExit(f"scores differ by {worst:.1e}, more than {TOLERANCE}")


def chosen(names: str | None, peers: str | None, refuse: Callable[[str], NoReturn]) -> list[str]:
    """The systems to compare, ours first."""
    if names == "all":
        found = [name for name, system in SYSTEMS.items() if peers or not system.elsewhere]
    else:
        found = names.split(",") if names else [*USUAL, *(["FlagEmbedding"] if peers else [])]
    for name in found:
        if name not in SYSTEMS:
            refuse(f"--systems: no system {name!r} (expected some of {', '.join(SYSTEMS)})")
        if SYSTEMS[name].elsewhere and not peers:
            refuse(f"--systems {name} needs --peers PYTHON (make bench-peers)")
    return list(dict.fromkeys([OURS, *found]))


def command(args: argparse.Namespace, system: str) -> list[str]:
    interpreter = args.peers if SYSTEMS[system].elsewhere else sys.executable
    words = [interpreter, str(HERE / "peers.py"), system, "--model", args.model, "--device", args.device]
    words += ["--dtype", args.dtype, "--threads", str(args.threads), "--batch-size", str(args.batch_size)]
    return words + (["--batch-tokens", str(args.batch_tokens)] if args.batch_tokens else [])


class PeerError(Exception):
    """A system has ended, or gives no answer."""


class Peer:
    """A system that waits for questions."""

    def __init__(self, args: argparse.Namespace, system: str, scratch: Path) -> None:
        pipe = subprocess.PIPE
        self.versions: dict[str, str] = {}
        self._patience = args.patience
        self._said = scratch / f"{system}.log"
        with self._said.open("w") as log:
            self._process = subprocess.Popen(
                command(args, system), stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment()
            )

    def ask(self, question: dict[str, str]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], self._patience)[0]:
            self._process.kill()
            raise PeerError(f"no answer within {self._patience} s")
        answer = self._process.stdout.readline()
        if not answer:
            last = "".join(self._said.read_text().splitlines()[-1:])
            raise PeerError(f"ended with {self._process.wait()}: {last}")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def environment() -> dict[str, str]:
    """Without what would set threads for us, and without a hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def started(args: argparse.Namespace, scratch: Path) -> tuple[dict[str, Peer], dict[str, str]]:
    """The systems with their models loaded, one after the other, and why others cannot be."""
    peers: dict[str, Peer] = {}
    failed: dict[str, str] = {}
    for system in args.systems:
        peer = Peer(args, system, scratch)
        try:
            peer.versions = peer.ask({"versions": ""})
        except PeerError as error:
            if system == OURS:
                raise SystemExit(f"{system}: {error}") from error
            failed[system] = str(error)
            peer.close()
        else:
            peers[system] = peer
    return peers, failed


def scoring(args: argparse.Namespace, pairs: Pairs, scratch: Path) -> dict[str, Any]:
    """One call with all pairs, after a round that does not count; one system at a time."""
    path = scratch / "pairs.json"
    path.write_text(json.dumps(pairs))
    peers, failed = started(args, scratch)
    seconds: Seconds = {system: [] for system in peers}
    scores = {}
    peaks: dict[str, list[float]] = {system: [] for system in peers if SYSTEMS[system].ours}
    done, nominal = peers[OURS].ask({"costs": str(path)})
    for number in range(args.rounds + 1):
        for system, peer in list(peers.items()):
            try:
                before = peer.ask({"peak": ""}) if number and system in peaks else 0.0
                answer = peer.ask({"pairs": str(path)})
            except PeerError as error:
                if system == OURS:
                    raise
                failed[system] = str(error)
                peers.pop(system).close()
                del seconds[system]
                peaks.pop(system, None)
                continue
            scores[system] = np.array(answer["scores"])
            if number:
                seconds[system].append(answer["seconds"])
            if number and system in peaks:
                peaks[system].append(max(before, peer.ask({"peak": ""})))
    for peer in peers.values():
        peer.close()
    queries = [query for query, _ in pairs]
    gaps = {name: difference(queries, scores[name], scores[OURS]) for name in peers if name != OURS}
    shares = {
        "peak_gflops": {system: round(statistics.median(found) / 1e9, 1) for system, found in peaks.items()},
        "share_of_peak": share_of_peak(done, seconds, peaks),
        "share_of_peak_plain_model": share_of_peak(nominal, seconds, peaks),
    }
    show("scoring", args, pairs, seconds, gaps)
    for system, why in failed.items():
        print(f"  {system}: {why}")
    for system, peak in shares["peak_gflops"].items():
        done_share, plain_share = (shares[name][system] for name in ("share_of_peak", "share_of_peak_plain_model"))
        print(f"  {system}: {done_share:.1%} of this machine's {peak:,} GFLOP/s by the work done,", end=" ")
        print(f"{plain_share:.1%} by that of the plain model")
    print()
    return (
        figures(pairs, seconds)
        | shares
        | {
            "worst_delta": {name: gap.worst for name, gap in gaps.items()},
            "kendall_tau": {name: round(gap.kendall_tau, 4) for name, gap in gaps.items()},
            "failed": failed,
            "versions": {name: peer.versions for name, peer in peers.items()},
        }
    )


def share_of_peak(operations: int, seconds: Seconds, peaks: dict[str, list[float]]) -> dict[str, float]:
    """The median over the rounds, each with the peak measured around it."""
    return {
        system: round(statistics.median(operations / s / p for s, p in zip(seconds[system], found, strict=True)), 4)
        for system, found in peaks.items()
    }


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


def show(
    what: str, args: argparse.Namespace, pairs: Pairs, seconds: Seconds, gaps: Mapping[str, Difference] | None = None
) -> None:
    print(f"{what}: {len(pairs)} pairs, {args.threads} threads, medians of {args.rounds} interleaved rounds\n")
    columns = f"{'worst |Δ|':>11}{'Kendall τ':>11}" if gaps is not None else ""
    print(f"  {'':<28}{'pairs/s':>9}{'seconds':>10}{'from':>8}{'to':>8}{'ratio':>8}{columns}")
    ours = statistics.median(seconds[OURS])
    for name, found in seconds.items():
        median, gap = statistics.median(found), (gaps or {}).get(name)
        compared = f"{gap.worst:>11.1e}{gap.kendall_tau:>11.4f}" if gap else ""
        times = f"{median:>10.2f}{min(found):>8.2f}{max(found):>8.2f}{median / ours:>8.2f}"
        print(f"  {name:<28}{len(pairs) / median:>9.1f}{times}{compared}")
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
