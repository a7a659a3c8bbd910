"""Sessions without a model for Ray actors, and a job with such workers as a program of its own.

`on_ray.py ADDRESS FOLDER LEAST MOST`: reads FOLDER/in.jsonl, writes FOLDER/out.jsonl, and at its end prints what its
workers did as JSON. Test and sessions tell each other by files in FOLDER.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
from elsewhere import RowSession

KILLS, *GATES = "10.5.", "60.5.", "140.5."
MET = {}  # marks by id of what was prepared


@dataclass
class Watched(RowSession):
    """Where a passage is KILLS and a file of that name exists, removes it and kills its process. Where one is a gate,
    makes a file at-GATE with its process id, and waits until one named GATE exists.
    """

    folder: Path = Path()

    def prepare(self, pairs):
        prepared = super().prepare(pairs)
        MET[id(prepared)] = [mark for mark in (KILLS, *GATES) if mark in pairs.passages]
        return prepared

    def score(self, prepared, *others):
        for mark in MET.pop(id(prepared)):
            gate = self.folder / mark
            if mark == KILLS and gate.exists():
                gate.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            while mark in GATES and not gate.exists():
                (self.folder / f"at-{mark}{os.getpid()}").touch()
                time.sleep(0.01)
        return super().score(prepared, *others)


def main():
    from instant import config

    from rerank_cli.cli.terminal.streams import prepare
    from rerank_cli.run.job import run
    from rerank_cli.run.scoring.workers.pool import Workers
    from rerank_cli.run.scoring.workers.ray_cluster import RayCluster
    from rerank_cli.run.scoring.workers.ray_transport import Needs, RayTransport
    from rerank_cli.run.scoring.workers.transport import Place
    from rerank_cli.run.signals import die_of

    address, folder, least, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    prepare()
    pool = []

    def workers(_):
        places = [Place("cpu", partial(Watched, 0.002, folder=folder))] * most
        pool.append(Workers(places, RayTransport(RayCluster(address), Needs(1)), least))
        return pool[0]

    summary, stop = run(config(folder / "in.jsonl", folder / "out.jsonl", chunk_pairs=30 * 7), workers)
    if stop.signal:
        die_of(stop.signal)
    told = {"workers": pool[0].shown(), "resumed": summary.stats.resumed_records}
    print(orjson.dumps(told).decode())


if __name__ == "__main__":
    main()
