"""Peak memory of a run on a small and on a large JSONL file, with a scorer that costs nothing.

Everything but model and tokenizer is real: reading, chunking, ranking, writing. Also prints pairs a second of that
machinery. A table, then one JSON line.

    python benchmarks/memory.py --small 10 --large 1000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from rerank_cli.choices import OutputFormat, ProgressMode
from rerank_cli.engine.contract import ModelFacts, Sizes, Work
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts, Prepared
from rerank_cli.engine.rows.windows import Windows
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig

MEGABYTE = 1_000_000


class InstantSession:
    """A session without a model: a pair's logit is the length of its passage."""

    facts = ModelFacts("instant", "", "fake", "cpu", "fp32", 0, True, 512, 384, 2048)
    sizes = Sizes(batch_tokens=2048, chunk_pairs=1024)
    work = Work()

    def prepare(self, pairs: PairTexts) -> Prepared:
        lengths = np.array([len(text) for text in pairs.passages], dtype=np.int64)
        return Prepared(
            (), lengths, Windows.one_each(lengths), lengths, np.zeros(len(lengths), dtype=bool), len(lengths)
        )

    def score(self, prepared: Prepared, *_: object) -> npt.NDArray[np.float32]:
        return prepared.distinct.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=float, default=10, help="megabytes")
    parser.add_argument("--large", type=float, default=1000, help="megabytes")
    parser.add_argument("--documents", type=int, default=10, help="of each request")
    parser.add_argument("--characters", type=int, default=600, help="of each document")
    parser.add_argument("--child", nargs=2, metavar=("INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    rows = [measure(size, args.documents, args.characters) for size in (args.small, args.large)]
    for row in rows:
        print(f"{row['megabytes']:>8.0f} MB{row['pairs']:>12,} pairs{row['peak_mb']:>8.0f} MB peak", end="")
        print(f"{row['pairs_per_second']:>10,.0f} pairs/s")
    growth = rows[1]["peak_mb"] - rows[0]["peak_mb"]
    print(f"\ngrowth {growth:.0f} MB\n")
    print(orjson.dumps({"benchmark": "memory", "runs": rows, "growth_mb": round(growth, 1)}).decode())


def measure(megabytes: float, documents: int, characters: int) -> dict[str, float]:
    """Generate an input of this size and run it in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        given, written = Path(scratch, "in.jsonl"), Path(scratch, "out.jsonl")
        generate(given, megabytes, documents, characters)
        command = [sys.executable, __file__, "--child", str(given), str(written)]
        found = orjson.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert written.stat().st_size > given.stat().st_size / 2
        return {"megabytes": megabytes, **found}


def generate(path: Path, megabytes: float, documents: int, characters: int) -> None:
    """Small requests of filler text until the file is large enough."""
    filler = ("the quick brown fox jumps over the lazy dog " * (characters // 40 + 1))[: characters - 12]
    with path.open("wb") as file:
        number = 0
        while file.tell() < megabytes * MEGABYTE:
            texts = [f"{number:>8} {n:>2} {filler}" for n in range(documents)]
            record = {"id": number, "query": f"what does fox {number} do?", "documents": texts}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            number += 1


def child(given: str, written: str) -> None:
    begun = time.perf_counter()
    config = RunConfig(
        ModelOptions("instant"),
        InputOptions((given,)),
        OutputOptions(written, OutputFormat.API, AnswerOptions("instant")),
        progress=ProgressMode.OFF,
    )
    summary, _ = run(config, lambda _: InstantSession())
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    pairs = summary.stats.pairs
    print(orjson.dumps({"pairs": pairs, "peak_mb": peak, "pairs_per_second": round(pairs / seconds)}).decode())


if __name__ == "__main__":
    main()
