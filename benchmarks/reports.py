"""What a report of a small and of a large output costs, how large its page is, and how soon `view` shows a query.

Outputs are made up: 100 candidates a query with texts, scores that know a little of the judgements. Each report runs in
a process of its own. A table, then one JSON line.

    python benchmarks/reports.py --small 300 --large 3000
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

RERANK = [sys.executable, "-m", "rerank_cli"]
WORDS = [
    "the",
    "protein",
    "of",
    "this",
    "gene",
    "binds",
    "a",
    "receptor",
    "and",
    "its",
    "level",
    "in",
    "patients",
    "was",
    "higher",
    "than",
    "in",
    "controls",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=300, help="queries")
    parser.add_argument("--large", type=int, default=3000, help="queries")
    parser.add_argument("--depth", type=int, default=100, help="candidates of each")
    parser.add_argument("--words", type=int, default=220, help="of each text")
    args = parser.parse_args()
    rows = [measure(queries, args.depth, args.words) for queries in (args.small, args.large)]
    for row in rows:
        print(
            f"{row['queries']:>8,} queries{row['output_mb']:>9,.0f} MB{row['seconds']:>8.1f} s"
            f"{row['peak_mb']:>7.0f} MB peak{row['page_mb']:>7.2f} MB page{row['view_seconds']:>7.2f} s to view"
        )
    print()
    print(orjson.dumps({"benchmark": "reports", "runs": rows}).decode())


def measure(queries: int, depth: int, words: int) -> dict[str, float]:
    """Make an output, report it, and look at its first query."""
    with tempfile.TemporaryDirectory() as scratch:
        output, qrels, page = (Path(scratch, name) for name in ("out.jsonl", "qrels.txt", "report.html"))
        generate(output, qrels, queries, depth, words)
        begun = time.perf_counter()
        peak = peak_of([*RERANK, "report", str(output), "--qrels", str(qrels), "-o", str(page)])
        seconds = time.perf_counter() - begun
        return {
            "queries": queries,
            "pairs": queries * depth,
            "output_mb": round(output.stat().st_size / 1e6, 1),
            "seconds": round(seconds, 2),
            "pairs_per_second": round(queries * depth / seconds),
            "peak_mb": peak,
            "page_mb": round(page.stat().st_size / 1e6, 3),
            "view_seconds": round(first_sight(output), 2),
        }


def generate(output: Path, qrels: Path, queries: int, depth: int, words: int) -> None:
    """Two relevant documents a query, ranked at random by the first stage, and better by the second."""
    rng = random.Random(7)
    texts = [" ".join(rng.choices(WORDS, k=words)) for _ in range(500)]
    with output.open("wb") as answers, qrels.open("w") as judgements:
        for query in range(queries):
            relevant = set(rng.sample(range(depth), 2))
            judgements.writelines(f"{query} 0 d{document} 1\n" for document in relevant)
            scores = sorted(((rng.gauss(2.0 * (n in relevant) - 2.0, 1.5), n) for n in range(depth)), reverse=True)
            results = [
                {
                    "index": n,
                    "document": {"id": f"d{n}", "title": f"Document {n}", "text": rng.choice(texts)},
                    "relevance_score": score,
                }
                for score, n in scores
            ]
            answer = {"id": str(query), "model": "none", "usage": {"total_tokens": depth * words}, "results": results}
            answers.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))


def peak_of(command: list[str]) -> float:
    """Run a command to its end; the megabytes it held at most."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.returncode
    return round(usage.ru_maxrss / 1000, 1)


def first_sight(output: Path) -> float:
    """Seconds until `view` has shown a line."""
    begun = time.perf_counter()
    with subprocess.Popen([*RERANK, "view", str(output)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        seconds = time.perf_counter() - begun
        process.stdout.close()
    return seconds


if __name__ == "__main__":
    main()
