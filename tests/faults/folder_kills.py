"""Equal commands with one output folder, started and killed with SIGKILL at random moments until all files are done.

    python tests/faults/folder_kills.py --files 200 --processes 4 --kills 24 --seed 7

Prints one JSON object: outputs that differ from those of single runs, pairs scored in all against pairs there are, and
what was left behind. Exit code 0 if every output is right and less than 5 % of the pairs were scored twice.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from processes import RERANK, TIMEOUT, TINY, environment, foreground

_TEXT = "the giant panda is a bear that lives in china"


@dataclass(frozen=True, slots=True)
class Campaign:
    """So many files of about `records` records, processes at a time, and kills."""

    files: int
    processes: int
    kills: int
    seed: int
    records: int = 40

    def run(self, folder):
        """The figures, as `main` prints them."""
        rng, since = random.Random(self.seed), time.monotonic()
        given, out, scored = folder / "in", folder / "out", folder / "scored"
        pairs = self._write_inputs(given, rng)
        alone = folder / "alone"
        alone.mkdir()
        scored.mkdir()
        done, kills, running, codes = 0, [], [], []
        while True:
            codes += [process.returncode for process in running if process.poll() is not None]
            running = [process for process in running if process.returncode is None]
            if codes or (out / "_SUCCESS").exists():
                break
            while len(running) < self.processes:
                running.append(self._start(given, out, scored))
            if len(kills) == self.kills:
                break
            # Moments are drawn by work done, not by time, so that a slow machine is not killed before it has begun.
            done += rng.uniform(0, 2) * pairs / (self.kills + 1) / 1.1
            self._wait(lambda until=done: _total(scored) >= until or (out / "_SUCCESS").exists())
            victim = running.pop(rng.randrange(len(running)))
            victim.kill()
            if victim.wait() == -9:
                kills.append(victim.pid)
        codes += [process.wait(TIMEOUT) for process in running]
        outputs = sorted(path.name for path in given.iterdir())
        _single_runs(given, alone, outputs)
        wrong = [name for name in outputs if _bytes(out / name) != _bytes(alone / name)]
        expected = {*outputs, "_SUCCESS", "_manifest.json"}
        return {
            "files": self.files,
            "processes": self.processes,
            "kills": len(kills),
            "exit_codes": sorted(codes),
            "wrong": wrong,
            "left_behind": sorted({path.name for path in out.iterdir()} - expected),
            "complete": (out / "_SUCCESS").exists() and (out / "_manifest.json").exists(),
            "pairs": pairs,
            "scored": _total(scored),
            "twice": round(_total(scored) / pairs - 1, 4),
            "seconds": round(time.monotonic() - since, 1),
        }

    def _write_inputs(self, given, rng):
        """The number of pairs."""
        given.mkdir()
        pairs = 0
        for number in range(self.files):
            with open(given / f"part-{number:05d}.jsonl", "w") as file:
                for line in range(rng.randint(self.records // 2, self.records * 3 // 2)):
                    texts = [f"{number} {line} {n} {_TEXT}" for n in range(rng.randint(1, 20))]
                    pairs += len(texts)
                    file.write(
                        json.dumps({"id": f"{number}-{line}", "query": f"panda {line}", "documents": texts}) + "\n"
                    )
        return pairs

    def _start(self, given, out, scored):
        """One more process with the command, which counts the pairs it scores in a file of its own."""
        words = [sys.executable, __file__, "worker", str(scored), "run", f"{given}/", "-o", f"{out}/", "-m", TINY, "-q"]
        flags = ["--threads", "1", "--chunk-pairs", "40", "--commit-interval", "0"]
        settings = {"env": environment({"OMP_NUM_THREADS": "1"}), "stdin": subprocess.DEVNULL}
        return subprocess.Popen([*words, *flags], preexec_fn=foreground, **settings)

    def _wait(self, condition):
        end = time.monotonic() + TIMEOUT
        while not condition() and time.monotonic() < end:
            time.sleep(0.005)


def _single_runs(given, alone, names):
    from rerank_cli import run_file

    for name in names:
        run_file(given / name, alone / name, model=TINY, threads=1, chunk_pairs=40)


def _total(folder):
    """Pairs scored by all processes: one byte each."""
    return sum(path.stat().st_size for path in folder.iterdir())


def _bytes(path):
    return path.read_bytes() if path.exists() else None


def worker(scored, words):
    """The command, with a count of the pairs of every row once it is scored."""
    from rerank_cli.cli.main import main as command
    from rerank_cli.run.recovery import journal

    file = os.open(Path(scored) / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    done = journal.SliceNotes.done

    def counted(self, pairs, scores):
        os.write(file, b"x" * len(pairs))
        done(self, pairs, scores)

    journal.SliceNotes.done = counted
    sys.argv = [RERANK, *words]
    command()


def main():
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rerank-folder-") as folder:
        found = Campaign(given.files, given.processes, given.kills, given.seed).run(Path(folder))
    print(json.dumps(found))
    good = found["complete"] and not found["wrong"] and not found["left_behind"] and not any(found["exit_codes"])
    return 0 if good and found["twice"] < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
