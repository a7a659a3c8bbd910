"""A training run killed at every single step that changes a file goes on to the same model, and leaves nothing else.

The process is real and dies of SIGKILL; the model is tiny. Every third time the second run is killed too.
"""

import gc
import json
import os
import random
from pathlib import Path

import pytest
import torch
from test_every_step import in_a_process

from rerank_cli.engine.options import ModelOptions
from rerank_cli.formats import InputOptions
from rerank_cli.formats.options import ById
from rerank_cli.training.data.open import DataOptions
from rerank_cli.training.options import HeldOutOptions, Rates, TrainConfig
from rerank_cli.training.run.job import train

pytestmark = pytest.mark.slow

TINY = str(Path(__file__).parents[1] / "models" / "parity" / "bert")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    records = [{"query": f"panda {i}", "pos": [f"bear {i}"], "neg": [f"river {i}", "war"]} for i in range(4)]
    _lines(folder / "train.jsonl", records)
    _lines(folder / "queries.jsonl", [{"_id": "q", "text": "what is panda"}])
    _lines(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": f"bear {i}"} for i in range(3)])
    (folder / "run").write_text("".join(f"q Q0 d{i} {i} {9 - i} x\n" for i in range(3)))
    (folder / "qrels").write_text("q 0 d1 1\n")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads do not survive a fork
    yield folder
    torch.set_num_threads(threads)


def _lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def content(folder):
    """All files by name, the log and the manifest without what a clock says."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith((".jsonl", "README.md", "training.json"))]:
        lines = found[name].decode().replace(",", ",\n").splitlines()
        found[name] = [line for line in lines if '"seconds"' not in line and "minutes" not in line]
    return found


def test_a_training_run_killed_at_any_step_goes_on_to_the_same_model(inputs, tmp_path):
    rng = random.Random(7)
    texts = ById(str(inputs / "queries.jsonl"), str(inputs / "corpus.jsonl"))
    held_out = HeldOutOptions(InputOptions((str(inputs / "run"),), by_id=texts), str(inputs / "qrels"), "RR", every=2)

    def job(folder):
        config = TrainConfig(
            ModelOptions(TINY, device="cpu"),
            DataOptions(InputOptions((str(inputs / "train.jsonl"),))),
            str(folder / "out"),
            group_size=3,
            batch_groups=2,
            epochs=2,
            rates=Rates(lr=1e-3),
            held_out=held_out,
            save_steps=1,
        )
        return lambda: train(config, signals=False)

    def folder_for(label):
        folder = tmp_path / label
        folder.mkdir()
        return folder

    job(folder_for("before"))()  # imports what each process would import
    gc.collect()
    gc.freeze()
    whole = folder_for("whole")
    assert in_a_process(job(whole), whole) == 0
    expected = content(whole)
    assert set(expected) > {"out/model.safetensors", "out/rerank_training.json", "out/training_log.jsonl"}
    step, died = 0, True
    while died:
        step += 1
        folder = folder_for(f"step-{step}")
        died = os.WIFSIGNALED(in_a_process(job(folder), folder, step))
        if died and step % 3 == 0:
            in_a_process(job(folder), folder, rng.randint(1, 60))
        if died:
            assert in_a_process(job(folder), folder) == 0, f"killed at step {step}"
        assert content(folder) == expected, f"killed at step {step}"
    gc.unfreeze()
    print(f"killed at each of {step - 1} steps")
    assert step > 60
