"""`rerank train` with a model that is divided over processes, as `accelerate launch --use_fsdp` starts them."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from shell import environment, json_lines, rerank, write_lines

PARITY = Path(__file__).parents[1] / "models" / "parity"
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
# The command, whose process (the second of two) gets a signal during its third step.
STOPPED = """
import os, signal
from rerank_cli.training.run.steps import Steps
from rerank_cli.cli.main import main

compute = Steps._step

def step(self):
    compute(self)
    if self.state.steps_done == 3 and os.environ.get("RANK", "1") == "1":
        os.kill(os.getpid(), signal.SIGTERM)

Steps._step = step
main()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """21 groups and a held-out run of 7 queries.

    Of five groups a step, two processes have rows of different numbers; in the last step one has none.
    """
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(5)
    known = ["panda", "bear", "bamboo", "china", "eats", "lives", "giant", "city", "river", "war", "paris"]

    def words(count):
        return " ".join(rng.choice(known) for _ in range(count))

    groups = [{"query": words(3), "pos": [words(220)], "neg": [words(230) for _ in range(4)]} for _ in range(21)]
    write_lines(folder / "train.jsonl", groups)
    write_lines(folder / "queries.jsonl", [{"_id": f"q{i}", "text": words(3)} for i in range(7)])
    write_lines(folder / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": words(4 + i)} for i in range(20)])
    (folder / "dev.tsv").write_text("".join(f"q{i}\td{i}\t1\n" for i in range(7)))
    rows = [f"q{i} Q0 d{(i + j * 3) % 20} {j} {20 - j} x\n" for i in range(7) for j in range(3 + i)]
    (folder / "run.trec").write_text("".join(rows))
    return folder


def launched(*command, divided, **more):
    """The outcome of Python with these arguments: two processes that divide the model, or one."""
    launch, env = [sys.executable], {"OMP_NUM_THREADS": "1", **more}
    if divided:
        launch += ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
        launch += ["--rdzv-endpoint", "127.0.0.1:0"]
        env |= FSDP
    return subprocess.run(
        [*launch, *map(str, command)], env=environment(env), capture_output=True, timeout=180, check=False
    )


def log(folder):
    return json_lines((Path(folder) / "training_log.jsonl").read_bytes())


@pytest.mark.parametrize("first", ["divided", "whole"])
def test_a_divided_model_learns_the_same_and_is_resumed_by_any_number_of_processes(data, tmp_path, first):
    """An encoder in two processes, then in one; a decoder in one process, then in two, its rows one by one."""
    encoder = first == "divided"
    model, more = (PARITY / "xlm-roberta", []) if encoder else (PARITY / "gemma", ["--full", "--weight-decay", "0.1"])
    flags = ["train", data / "train.jsonl", "-m", model, "--batch-groups", "5", "--group-size", "4", "--dropout", "0"]
    flags += ["--lr", "1e-3", *more]
    if encoder:
        held_out = ["--eval-run", data / "run.trec", "--eval-beir", data, "--eval-qrels", data / "dev.tsv"]
        flags += [*held_out, "--eval-every", "2"]
    assert rerank(*flags, "-o", tmp_path / "one", "-q").code == 0
    script, out = tmp_path / "stopped.py", tmp_path / "out"
    script.write_text(STOPPED)
    stopped = launched(script, *flags, "-o", out, divided=encoder)
    assert stopped.returncode != 0
    assert "stopped by SIGTERM, work kept" in stopped.stderr.decode()
    rest = [*flags, "-o", out] if encoder else [*flags, "-o", out, "--batch-tokens", "40"]
    ended = launched("-m", *([] if encoder else ["--"]), "rerank_cli", *rest, divided=not encoder)
    assert ended.returncode == 0, ended.stderr.decode()
    assert "resuming after step 3 of 5" in ended.stderr.decode()
    assert "over 2 processes" in (stopped if encoder else ended).stderr.decode()
    one, two = log(tmp_path / "one"), log(out)
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for name in ("loss", "gradient_norm"):
        expected = [line[name] for line in one if name in line]
        assert [line[name] for line in two if name in line] == pytest.approx(expected, abs=1e-5, rel=1e-5)
    measured = [[line["measures"] for line in lines if "measures" in line] for lines in (one, two)]
    assert measured[0] == measured[1]
    assert len(measured[0]) == (4 if encoder else 0)
    scores = [
        [found["logit"] for found in rerank("score", "a bear", "giant panda", "war", "-m", folder).records]
        for folder in (tmp_path / "one", out)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    assert not out.with_name("out.partial").exists()


def test_what_accelerate_asks_for_in_vain_is_one_line(data, tmp_path):
    flags = ["train", data / "train.jsonl", "-m", PARITY / "bert", "-o", tmp_path / "out", "-q"]
    for env, message in (
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED: rerank train has no DeepSpeed"),
        (FSDP | {"FSDP_VERSION": "1"}, "FSDP_VERSION 1: expected 2"),
        (FSDP, "ACCELERATE_USE_FSDP: there is one process, and nothing to divide"),
    ):
        ended = rerank(*flags, env=env)
        assert ended.code == 2, ended.err
        assert message in ended.complaint
    assert not list(tmp_path.iterdir())
