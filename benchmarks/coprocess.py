"""How soon `rerank run` answers a program that sends one request through a pipe and waits for the answer.

    python benchmarks/coprocess.py [--model mini] [--requests 200]

Time from the start of the process to the first answer, then median and 99th percentile of warm requests, of 2 and of 50
passages of about 20 tokens. A request is answered once the input has paused (`rerank_cli.storage.opening.PAUSE`), which
is part of the time. A table, then one JSON line.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import orjson

PASSAGE = "The giant panda number {} is a bear that lives in the mountains of China and eats bamboo."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--requests", type=int, default=200)
    given = parser.parse_args()
    results = {str(count): latencies(given.model, given.requests, count) for count in (2, 50)}
    print(f"{'passages':>8}  {'first answer':>12}  {'median':>9}  {'p99':>9}")
    for count, found in results.items():
        print(f"{count:>8}  {found['first_s']:>10.2f} s  {found['median_ms']:>6.1f} ms  {found['p99_ms']:>6.1f} ms")
    print(orjson.dumps({"benchmark": "coprocess", "model": given.model, "requests": given.requests} | results).decode())


def latencies(model: str, requests: int, passages: int) -> dict[str, float]:
    """Seconds to the first answer, milliseconds to later ones."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "rerank_cli", "run", "-m", model, "-q"]
    seconds = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for number in range(requests + 1):
            documents = [PASSAGE.format(n) for n in range(passages)]
            record = {"id": number, "query": f"what is panda number {number}?", "documents": documents}
            sent = time.perf_counter() if number else begun
            process.stdin.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            process.stdin.flush()
            answer = orjson.loads(process.stdout.readline())
            seconds.append(time.perf_counter() - sent)
            assert answer["id"] == number
        process.stdin.close()
        assert process.wait() == 0
    warm = sorted(seconds[1:])
    return {
        "first_s": round(seconds[0], 2),
        "median_ms": round(1000 * statistics.median(warm), 1),
        "p99_ms": round(1000 * warm[int(0.99 * len(warm)) - 1], 1),
    }


if __name__ == "__main__":
    main()
