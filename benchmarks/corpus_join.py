"""A run of ids joined with a corpus much larger than the memory it may take: peak memory, and pairs a second.

Generates a corpus of short passages and a run, then measures, each in a process of its own: making the index, joining
with nothing of the corpus in the page cache, joining again with what that left there, and a whole `rerank run` whose
scorer costs nothing. A table, then one JSON line.

    python benchmarks/corpus_join.py --passages 9000000
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from memory import InstantSession

from rerank_cli.choices import OutputFormat, ProgressMode
from rerank_cli.engine.options import ModelOptions
from rerank_cli.formats import AnswerOptions, ById, InputOptions, OutputOptions, open_source
from rerank_cli.records import Request
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig

WORDS = b"the quick brown fox jumps over a lazy dog while seven wizards box with grumpy ghosts".split()
STEPS = ("build", "join, cold", "join, warm", "run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=9_000_000)
    parser.add_argument("--characters", type=int, default=285, help="of each passage")
    parser.add_argument("--queries", type=int, default=7_000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument(
        "--folder", help="keep the files here, and take those that are there [default: a temporary one]"
    )
    parser.add_argument("--child", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.folder or scratch)
        folder.mkdir(exist_ok=True)
        begun = time.perf_counter()
        generate(folder, args.passages, args.characters, args.queries, args.depth)
        size = (folder / "corpus.jsonl").stat().st_size
        print(f"{args.passages:,} passages ({size / 1e9:.2f} GB), {args.queries:,} queries of {args.depth}", end="")
        print(f", generated in {time.perf_counter() - begun:.0f} s\n")
        print(f"{'':<12}{'seconds':>10}{'of CPU':>10}{'pairs/s':>12}{'peak MB':>10}")
        rows = {step: measure(step, folder) for step in STEPS}
        index = index_of(folder).stat().st_size
    print(f"\nindex {index / 1e6:,.0f} MB\n")
    about = {"passages": args.passages, "corpus_bytes": size, "index_bytes": index}
    print(orjson.dumps({"benchmark": "corpus_join", **about, "steps": rows}).decode())


def measure(step: str, folder: Path) -> dict[str, Any]:
    """One step in a process of its own."""
    if step == "build":
        index_of(folder).unlink(missing_ok=True)
    if step == "join, cold":
        forget(folder / "corpus.jsonl")
    command = [sys.executable, __file__, "--child", step, str(folder)]
    row: dict[str, Any] = orjson.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    speed = f"{row['pairs_per_second']:>12,}" if row["pairs"] else " " * 12
    print(f"{step:<12}{row['seconds']:>10.1f}{row['cpu_seconds']:>10.1f}{speed}{row['peak_mb']:>10.0f}", flush=True)
    return row


def child(step: str, folder: Path) -> None:
    begun = time.perf_counter()
    pairs = _run(folder) if step == "run" else _join(folder, step != "build")
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    cpu = time.process_time()
    found = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "pairs": pairs, "peak_mb": round(peak)}
    found["pairs_per_second"] = round(pairs / seconds)
    print(orjson.dumps(found).decode())


def _join(folder: Path, joins: bool) -> int:
    """Pairs that were joined; opening alone makes the index."""
    source = open_source(given(folder))
    pairs = sum(_pairs(record) for record in source) if joins else 0
    source.close()
    return pairs


def _pairs(record: object) -> int:
    assert isinstance(record, Request), record
    return len(record.candidates)


def _run(folder: Path) -> int:
    output = OutputOptions(str(folder / "out.jsonl"), OutputFormat.API, AnswerOptions("instant"), overwrite=True)
    config = RunConfig(ModelOptions("instant"), given(folder), output, progress=ProgressMode.OFF)
    summary, _ = run(config, lambda _: InstantSession())
    return summary.stats.pairs


def given(folder: Path) -> InputOptions:
    texts = ById(str(folder / "queries.jsonl"), str(folder / "corpus.jsonl"), index_folder=str(folder / "index"))
    return InputOptions((str(folder / "run.trec"),), by_id=texts)


def index_of(folder: Path) -> Path:
    return next((folder / "index").glob("*.rerank-index"), folder / "index" / "none")


def generate(folder: Path, passages: int, characters: int, queries: int, depth: int) -> None:
    """The files, where they are not of this size already. Ids are scattered over the corpus."""
    (folder / "index").mkdir(exist_ok=True)
    wanted = f"{passages} {characters} {queries} {depth}"
    note = folder / "generated"
    if note.exists() and note.read_text() == wanted:
        return
    note.unlink(missing_ok=True)
    with (folder / "corpus.jsonl").open("wb") as file:
        file.writelines(corpus(passages, characters))
    with (folder / "queries.jsonl").open("wb") as file:
        file.writelines(b'{"_id":"q%d","text":"what does fox %d do at midnight?"}\n' % (n, n) for n in range(queries))
    rng = random.Random(7)
    with (folder / "run.trec").open("wb") as file:
        for query in range(queries):
            for rank, number in enumerate(rng.sample(range(passages), depth), 1):
                file.write(b"q%d Q0 d%d %d %.4f generated\n" % (query, number, rank, 100 - rank / 10))
    note.write_text(wanted)


def corpus(passages: int, characters: int) -> Iterator[bytes]:
    rng = random.Random(5)
    filler = b" ".join(rng.choices(WORDS, k=200_000))
    starts = [rng.randrange(len(filler) - characters) for _ in range(9973)]
    step = next(n for n in (999_983, 1_000_003, 1_000_033) if passages % n)  # primes: every number comes once
    for number in range(passages):
        at = starts[number % len(starts)]
        name = number * step % passages
        yield b'{"_id":"d%d","title":"passage %d","text":"%b"}\n' % (name, number, filler[at : at + characters])


def forget(path: Path) -> None:
    """Ask the system to drop a file from its page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


if __name__ == "__main__":
    main()
