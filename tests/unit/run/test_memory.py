"""Peak memory of a whole run, model and tokenizer apart; `benchmarks/memory.py` does the same for a gigabyte."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

pytestmark = pytest.mark.slow

CHILD = """
import resource, sys
from instant import config, go
go(config(sys.argv[1], sys.argv[2], chunk_pairs=1024))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_megabytes(tmp_path, megabytes):
    given, written = tmp_path / f"{megabytes}.jsonl", tmp_path / f"{megabytes}.out.jsonl"
    with given.open("wb") as file:
        number = 0
        while file.tell() < megabytes * 1_000_000:
            record = {"id": number, "query": f"query {number}", "documents": [f"{number} {n} " * 60 for n in range(10)]}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            number += 1
    command = [sys.executable, "-c", CHILD, given, written]
    done = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent, timeout=120)
    assert written.stat().st_size > given.stat().st_size
    return int(done.stdout) / 1000


def test_peak_memory_does_not_grow_with_the_input(tmp_path):
    assert peak_megabytes(tmp_path, 80) < peak_megabytes(tmp_path, 4) + 20
