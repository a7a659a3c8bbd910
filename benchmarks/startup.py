"""How long `rerank --help` takes beside a Python that does nothing, and a first score with the built-in model.

Medians of interleaved rounds, whole processes from start to end. A table, then one JSON line.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import orjson

COMMANDS = {
    "bare python": ["-c", "pass"],
    "rerank --help": ["-m", "rerank_cli", "--help"],
    "rerank score -m mini": ["-m", "rerank_cli", "score", "what is a panda?", "hi", "A bear of China.", "-m", "mini"],
}
ROUNDS = 11


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begun)
    medians = {name: round(statistics.median(found), 3) for name, found in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<22}{median:>8.3f} s")
    print(orjson.dumps({"benchmark": "startup", "rounds": ROUNDS, "seconds": medians}).decode())


if __name__ == "__main__":
    main()
