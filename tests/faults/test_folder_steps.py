"""A job with an output folder, killed at every step that changes a file: begun again it ends with the same files.

The process dies of SIGKILL; the model answers at once. Every third time the second process is killed too. `_SUCCESS` is
never there before all outputs and the manifest are.
"""

import json
import os
import random

import pytest
from test_every_step import in_a_process, inputs  # noqa: F401 - a fixture

from instant import InstantSession, config  # isort: skip - found by the module before

from rerank_cli.run.folders.job import run_folder

pytestmark = pytest.mark.slow


def snapshot(out):
    """Content of all files; of the manifest what does not depend on the time."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if "_manifest.json" in found:
        manifest = json.loads(found["_manifest.json"])
        files = [{name: value for name, value in file.items() if name != "finished"} for file in manifest["files"]]
        found["_manifest.json"] = files, manifest["totals"]
    return found


def test_a_folder_killed_at_any_step(inputs, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(os, "fsync", lambda _: None)  # still counted as a step; a kill loses nothing that was written
    given, rng = tmp_path / "in", random.Random(3)
    lines = (inputs / "requests").read_bytes().splitlines(keepends=True)
    for name, part in (("day=1/a.jsonl", lines[:3]), ("b.jsonl", [])):
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).write_bytes(b"".join(part))

    def job(out, xattrs=True):
        def act():
            if not xattrs:
                del os.setxattr, os.getxattr
            plan = config(given, f"{out}/", commit_interval=0, chunk_pairs=8)
            run_folder(plan, lambda _: InstantSession(), lambda _: "r1")

        return act

    whole = tmp_path / "whole"
    assert in_a_process(job(whole), whole) == 0
    expected = snapshot(whole)
    assert set(expected) == {"day=1/a.jsonl", "b.jsonl", "_SUCCESS", "_manifest.json"}
    step, died = 0, True
    while died:
        step += 1
        out = tmp_path / f"step-{step}"
        act = job(out, xattrs=step % 2 == 0)  # half of the time as on a file system without extended attributes
        died = os.WIFSIGNALED(in_a_process(act, out, step))
        if died and step % 3 == 0:
            in_a_process(act, out, rng.randint(1, 60))
        if (out / "_SUCCESS").exists():
            assert {name: found for name, found in snapshot(out).items() if name in expected} == expected
        if died:
            assert in_a_process(act, out) == 0, f"killed at step {step}"
        assert snapshot(out) == expected, f"killed at step {step}"
    print(f"killed at each of {step - 1} steps")
    assert step > 60
