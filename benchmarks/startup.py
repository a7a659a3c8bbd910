"""How long `rerank --help` takes beside a Python that does nothing, and how soon `mini` gives a first score.

Beside it stand the imports of torch, which every score needs, and of transformers' BERT, which `mini` does without.

Medians of interleaved rounds, from the start of a process to its first line, or to its end where it prints none. What
else is installed counts: transformers imports some libraries where they are there. A table, then one JSON line.
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
    "import torch": ["-c", "import torch; print()"],
    "transformers' BERT": ["-c", "import torch; from transformers import BertForSequenceClassification; print()"],
    "rerank score -m mini": ["-m", "rerank_cli", "score", "what is a panda?", "hi", "A bear of China.", "-m", "mini"],
}
ROUNDS = 11


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            begun = time.perf_counter()
            command = [sys.executable, *words]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdout
                process.stdout.readline()
                seconds[name].append(time.perf_counter() - begun)
                process.communicate()
            assert process.returncode == 0
    medians = {name: round(statistics.median(found), 3) for name, found in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<22}{median:>8.3f} s")
    print(orjson.dumps({"benchmark": "startup", "rounds": ROUNDS, "seconds": medians}).decode())


if __name__ == "__main__":
    main()
