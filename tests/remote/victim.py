"""A run with its files in a bucket, in a process of its own that dies of SIGKILL at a request to the store.

python victim.py CONFIG.json
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "unit" / "run"))

from instant import InstantSession, config

from rerank_cli.choices import OnError
from rerank_cli.run.job import run
from rerank_cli.storage.objects.buckets import ObjectStore


def main():
    asked = json.loads(sys.argv[1])
    requests, tried = 0, ObjectStore._tried

    def counted(self, ask):
        """Every request is two steps: before it and after it."""
        nonlocal requests
        for step in (lambda: None, lambda: tried(self, ask)):
            found = step()
            requests += 1
            if requests == asked["dies_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
        return found

    ObjectStore._tried = counted
    more = {"on_error": OnError.SKIP, "errors": asked["errors"]} if asked.get("errors") else {}
    plan = config(asked["input"], asked["output"], checkpoint=asked["checkpoint"], chunk_pairs=12, **more)
    run(plan, lambda _: InstantSession(), lambda _: "r1")
    print(requests)


if __name__ == "__main__":
    main()
