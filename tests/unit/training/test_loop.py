"""Parts of the loop that no command shows: memory that runs out, collapse, the best step, work folders."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_records import RECORDS, lines

from rerank_cli.choices import Resume
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, OutputError, RefusedError, UsageError
from rerank_cli.formats import InputOptions
from rerank_cli.formats.options import ById
from rerank_cli.models.trainable import Trainable
from rerank_cli.reports.training import read_log
from rerank_cli.training.data.open import DataOptions
from rerank_cli.training.options import HeldOutOptions, Rates, TrainConfig
from rerank_cli.training.run import steps
from rerank_cli.training.run.checkpoints import STATE, WEIGHTS, TrainingState, WorkFolder
from rerank_cli.training.run.evaluation import open_held_out
from rerank_cli.training.run.job import train
from rerank_cli.training.run.log import StepLog

TINY = str(Path(__file__).parents[2] / "models" / "parity" / "bert")


@pytest.fixture
def config(tmp_path):
    data = DataOptions(InputOptions((lines(tmp_path / "train.jsonl", RECORDS),)))
    model = ModelOptions(TINY, device="cpu")
    return TrainConfig(model, data, str(tmp_path / "out"), group_size=4, batch_groups=3, rates=Rates(1e-3), dropout=0)


def weights(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def losses(folder):
    found = [json.loads(line) for line in (Path(folder) / "training_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in found if "loss" in line]


def test_memory_that_runs_out_is_met_before_step_one_and_splits_batches(config, tmp_path, monkeypatch):
    train(config, signals=False)
    rows = []
    plain = Trainable.logits

    def limited(self, row):
        if torch.is_grad_enabled():
            if row.tokens > 40:
                raise torch.OutOfMemoryError
            rows.append(row.tokens)
        return plain(self, row)

    monkeypatch.setattr(Trainable, "logits", limited)
    said = []
    begun = []
    monkeypatch.setattr(
        StepLog, "write", lambda self, line, write=StepLog.write: (begun.append(len(rows)), write(self, line))
    )
    train(replace(config, output=str(tmp_path / "split"), notify=said.append), signals=False)
    assert max(rows) <= 40
    assert begun[0] > 0
    assert losses(tmp_path / "split") == pytest.approx(losses(tmp_path / "out"), abs=1e-6)


def test_a_pair_that_does_not_fit_ends_the_run_before_step_one(config, tmp_path, monkeypatch):
    def never(self, row):  # noqa: ARG001 - as Trainable.logits
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Trainable, "logits", never)
    with pytest.raises(ModelError, match="out of memory on a single pair"):
        train(config, signals=False)
    assert not (tmp_path / "out.partial" / "checkpoint-00000000").exists()


def test_equal_scores_for_many_steps_end_the_run(config, monkeypatch):
    monkeypatch.setattr(steps, "_COLLAPSED", 5)
    monkeypatch.setattr(steps, "_EQUAL", 1e9)
    with pytest.raises(ModelError, match=r"step 5: all passages have had the same score for 5 steps \(loss \d\.\d+\)"):
        train(replace(config, epochs=9), signals=False)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_checkpoint(config, tmp_path):
    said = []
    with pytest.raises(ModelError, match=r"step \d+: the loss is .* and the norm of the gradient"):
        train(
            replace(config, rates=Rates(1e30, clip=0, warmup=0), epochs=20, save_steps=1, notify=said.append),
            signals=False,
        )
    assert "the checkpoint of step" in said[-1]
    state = WorkFolder(str(tmp_path / "out")).saved(Resume.AUTO)
    assert state.steps_done > 0


@pytest.fixture
def folder(tmp_path):
    found = WorkFolder(str(tmp_path / "out"))
    found.create()
    return found


def test_a_checkpoint_is_whole_or_not_there(folder):
    state = TrainingState({"lr": 1}, steps_done=3, best_step=3)
    assert folder.saved(Resume.AUTO) is None
    folder.save(state, {"w": torch.ones(2)}, {"w:step": torch.tensor(3.0)})
    folder.save(replace(state, steps_done=5), {"w": torch.zeros(2)}, {})
    assert [path.name for path in sorted(folder.path.iterdir())] == ["best-00000003", "checkpoint-00000001"]
    assert folder.saved(Resume.REQUIRE).steps_done == 5
    assert folder.tensors(WEIGHTS)["w"].tolist() == [0, 0]
    assert folder.best_weights(state)["w"].tolist() == [1, 1]
    (folder.path / "checkpoint-00000002.new").mkdir()  # killed while saving
    assert folder.saved(Resume.AUTO).steps_done == 5
    folder.save(replace(state, steps_done=6), {"w": torch.zeros(2)}, {})
    assert not (folder.path / "checkpoint-00000002.new").exists()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"kind": "rerank training 1"}'])
def test_a_damaged_checkpoint_is_refused(folder, damage):
    folder.save(TrainingState({}), {"w": torch.ones(2)}, {})
    (folder.path / "checkpoint-00000000" / STATE).write_bytes(damage)
    with pytest.raises(RefusedError, match=r"the checkpoint is damaged, the run cannot be resumed\. Fix: --restart"):
        folder.saved(Resume.AUTO)


def test_a_checkpoint_with_a_cut_file_or_of_another_version_is_refused(folder):
    folder.save(TrainingState({}), {"w": torch.ones(2)}, {})
    state = folder.path / "checkpoint-00000000" / STATE
    text = state.read_bytes()
    state.write_bytes(text.replace(b"training 1", b"training 0"))
    with pytest.raises(RefusedError, match="another version"):
        folder.saved(Resume.AUTO)
    state.write_bytes(text)
    (folder.path / "checkpoint-00000000" / WEIGHTS).write_bytes(b"")
    with pytest.raises(RefusedError, match="damaged"):
        folder.saved(Resume.AUTO)


def test_folders_of_others_beside_the_output_stay(config, tmp_path):
    for name in ("out.old", "out.base"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("x")
    train(config, signals=False)
    train(replace(config, seed=1, overwrite=True), signals=False)
    assert all((tmp_path / name / "thesis.txt").exists() for name in ("out.old", "out.base"))
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.old", "out.base", "train.jsonl"}


def test_a_kill_while_a_result_is_replaced_loses_neither(config, tmp_path, monkeypatch):
    train(config, signals=False)
    before = weights(tmp_path / "out")
    rename = Path.rename
    killed = []

    def dies(self, target):
        if self.name == "result":
            killed.append(rename(self, self))
            raise KeyboardInterrupt
        return rename(self, target)

    other = replace(config, seed=1, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            train(other, signals=False)
    assert killed
    assert not (tmp_path / "out").exists()
    with pytest.raises(RefusedError, match="exists already"):
        train(replace(other, overwrite=False), signals=False)
    assert weights(tmp_path / "out") == before
    train(other, signals=False)
    assert weights(tmp_path / "out") != before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "train.jsonl"}


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(config, tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        train(replace(config, log=str(tmp_path / "gone" / "log")), signals=False)
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_other_data_of_the_same_settings_is_not_complete_already(config, tmp_path):
    train(config, signals=False)
    other = lines(tmp_path / "other.jsonl", RECORDS[:4])
    with pytest.raises(RefusedError, match="exists already"):
        train(replace(config, data=DataOptions(InputOptions((other,)))), signals=False)
    pattern = replace(config, data=DataOptions(InputOptions((str(tmp_path / "t*.jsonl"),))))
    summary, _ = train(pattern, signals=False)
    assert summary.nothing_to_do
    lines(tmp_path / "train2.jsonl", RECORDS[:4])
    with pytest.raises(RefusedError, match="exists already"):
        train(pattern, signals=False)


def test_another_grouping_of_the_rows_is_another_run(config):
    stopped = replace(config, max_duration=0.0, epochs=1e6)
    train(stopped, signals=False)
    given = replace(config.data.input, sort=True)
    with pytest.raises(RefusedError, match="started with other settings"):
        train(replace(stopped, data=replace(config.data, input=given)), signals=False)


def test_another_held_out_run_is_another_mark(tmp_path):
    lines(tmp_path / "corpus.jsonl", [{"_id": f"d{i}", "text": f"text {i}"} for i in range(9)])
    lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "query"}])
    (tmp_path / "qrels.tsv").write_text("q\td1\t1\n")
    marks = set()
    for count in (3, 4):
        (tmp_path / "run.trec").write_text("".join(f"q Q0 d{i} {i} {9 - i} x\n" for i in range(count)))
        ids = ById(str(tmp_path / "queries.jsonl"), str(tmp_path / "corpus.jsonl"))
        given = InputOptions((str(tmp_path / "run.trec"),), by_id=ids)
        options = HeldOutOptions(given, str(tmp_path / "qrels.tsv"), "nDCG@10")
        marks.add(open_held_out(options, lambda _: None).mark)
    assert len(marks) == 2
    with pytest.raises(UsageError, match=r"^--eval-measures best: not a measure"):
        open_held_out(replace(options, measures="best"), lambda _: None)


def test_a_log_moves_with_its_lines(config, tmp_path):
    def run_for(log):
        train(
            replace(config, log=log and str(tmp_path / log), epochs=1e6, max_duration=2.0, save_steps=1), signals=False
        )
        place = tmp_path / log if log else tmp_path / "out.partial" / "log.jsonl"
        assert read_log(str(tmp_path / "out")).steps[0]["step"] == 1
        return [json.loads(line)["step"] for line in place.read_text().splitlines()]

    counts = [run_for(log) for log in ("a.log", "b.log", None, "b.log")]
    assert all(steps == list(range(1, len(steps) + 1)) for steps in counts)
    assert [len(steps) for steps in counts] == sorted(len(steps) for steps in counts)
    assert (tmp_path / "out.partial" / "log.jsonl").is_symlink()
    assert [json.loads(line)["step"] for line in (tmp_path / "a.log").read_text().splitlines()] == counts[0]
