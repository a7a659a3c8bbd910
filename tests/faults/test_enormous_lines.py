"""A line of a hundred megabytes is a record like any other; memory stays within a few times its size."""

import json
import subprocess
import sys

import pytest
from processes import RERANK, TINY, environment

pytestmark = pytest.mark.slow

CHILD = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def test_a_line_of_a_hundred_megabytes_between_others(tmp_path):
    words = "the giant panda is a bear that lives in china " * (100_000_000 // 46)
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with given.open("w") as file:
        for name, documents in (("before", ["a"]), ("enormous", ["a", words]), ("after", ["a"])):
            file.write(json.dumps({"id": name, "query": "panda", "documents": documents}) + "\n")
    assert given.stat().st_size > 99_000_000
    command = [RERANK, "run", given, "-m", TINY, "-q", "-o", output]
    done = subprocess.run([sys.executable, "-c", CHILD, *command], capture_output=True, env=environment(), check=False)
    assert done.returncode == 0
    answers = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [(answer["id"], len(answer["results"])) for answer in answers] == [
        ("before", 1),
        ("enormous", 2),
        ("after", 1),
    ]
    assert int(done.stderr) / 1000 < 1500  # megabytes
