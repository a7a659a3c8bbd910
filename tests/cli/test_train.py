"""`rerank train` as a command: figures of FlagEmbedding, stopping and going on, evaluation, errors."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shell import TINY, environment, json_lines, rerank, started, until, write_lines

PARITY = Path(__file__).parents[1] / "models" / "parity"
DATA = PARITY / "training" / "train.jsonl"
EXPECTED = json.loads((PARITY / "training" / "expected.json").read_text())["cases"]
EXACT = (
    "--lr 3e-4 --weight-decay 0 --warmup 0 --schedule constant --clip 0 --batch-groups 2 --group-size 5 --no-shuffle"
)
EXACT = [*EXACT.split(), "--dropout", "0", "--epochs", "1", "--full"]
SOON = 60

pytestmark = pytest.mark.slow


def words(rng, count):
    known = ["panda", "bear", "bamboo", "china", "eats", "lives", "giant", "city", "river", "war", "paris"]
    return " ".join(rng.choice(known) for _ in range(count))


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    rng = random.Random(3)
    records = [
        {"query": words(rng, 3), "pos": [words(rng, 12)], "neg": [words(rng, 12) for _ in range(4)]} for _ in range(24)
    ]
    return write_lines(tmp_path_factory.mktemp("groups") / "train.jsonl", records)


@pytest.fixture(scope="module")
def beir(tmp_path_factory):
    """A corpus whose relevant documents repeat the query's words, and a first stage in random order."""
    folder, rng = tmp_path_factory.mktemp("beir"), random.Random(4)
    queries = [{"_id": f"q{i}", "text": f"{words(rng, 3)} {i}"} for i in range(20)]
    write_lines(folder / "queries.jsonl", queries)
    write_lines(
        folder / "corpus.jsonl",
        [{"_id": f"d{i}", "title": "", "text": f"{queries[i]['text']} {words(rng, 6)}"} for i in range(20)],
    )
    (folder / "qrels").mkdir()
    for name, part in (("train", range(12)), ("dev", range(12, 20))):
        judged = "".join(f"q{i}\td{i}\t1\n" for i in part)
        (folder / "qrels" / f"{name}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    rows = [f"q{i} Q0 d{(i + j * 3) % 20} {j} {20 - j} x\n" for i in range(20) for j in range(6)]
    (folder / "run.trec").write_text("".join(rows))
    return folder


def weights(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def log(folder):
    """The lines of the log without what a clock says."""
    lines = json_lines((Path(folder) / "training_log.jsonl").read_bytes())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize(
    "case", [c for c in EXPECTED if c["kind"] == "encoder"], ids=lambda c: f"{c['checkpoint']}-{c['distillation']}"
)
def test_the_flags_reach_the_setting_of_the_reference(tmp_path, case):
    lengths = ["--query-max-length", case["query_max_len"], "--passage-max-length", case["passage_max_len"]]
    loss = [] if case["distillation"] else ["--loss", "ce"]
    model = PARITY / case["checkpoint"]
    files = ["-o", tmp_path / "out", "--log", tmp_path / "log"]
    ended = rerank("train", DATA, "-m", model, *files, *EXACT, *lengths, *loss, "-q")
    assert (ended.code, ended.err) == (0, "")
    lines = json_lines((tmp_path / "log").read_bytes())
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in lines] == pytest.approx(case["losses"], abs=1e-5)
    record = json.loads(DATA.read_text().splitlines()[0])
    scored = rerank("run", "-m", tmp_path / "out", "-q", stdin=json.dumps(record).encode() + b"\n").records[0]
    scores = scored["pos_scores"] + scored["neg_scores"]
    means = [sum(values) / 5 for values in (scores, case["scores_after"])]
    assert [s - means[0] for s in scores] == pytest.approx([s - means[1] for s in case["scores_after"]], abs=1e-4)


def test_a_stopped_run_goes_on_to_the_same_weights(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "--batch-groups", "2", "--group-size", "4", "--epochs", "8", "--lr", "1e-3"]
    flags += ["--save-steps", "5", "--eval-every", "1000"][:2]
    assert rerank(*flags, "-o", tmp_path / "whole", "-q").code == 0
    out = tmp_path / "out"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        with started(*flags, "-o", out, "--progress-interval", "0.1") as process:
            before = {path.name for path in (tmp_path / "out.partial").glob("checkpoint-*")}
            until(lambda seen=before: {p.name for p in (tmp_path / "out.partial").glob("checkpoint-*")} - seen)
            process.send_signal(number)
            err = process.stderr.read().decode()
            code = process.wait(timeout=SOON)
        if code == 0:
            break
        assert code == -number
        assert "Traceback" not in err
        assert not out.exists()
        if number is not signal.SIGKILL:
            assert f"stopped by {number.name}, work kept; the same command continues from here" in err
    ended = rerank(*flags, "-o", out)
    assert ended.code == 0
    assert weights(out) == weights(tmp_path / "whole")
    assert log(out) == log(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()
    assert not (tmp_path / "out.lock").exists()
    again = rerank(*flags, "-o", out)
    assert (again.code, again.err) == (
        0,
        f"rerank: {out}: already complete, nothing to do (--overwrite trains again)\n",
    )


def test_frozen_tensors_are_in_the_result_as_they_were(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "--lr", "1e-2"]
    ended = rerank(*flags, "--freeze", "*word_embeddings*, *.layer.0.*")
    assert ended.code == 0
    assert "weights without --freeze (" in ended.err
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (TINY, tmp_path / "out"))
    same = {name for name, weight in before.items() if torch.equal(weight, after[name])}
    assert {name for name in before if "word_embeddings" in name or ".layer.0." in name} <= same
    assert [name for name in before if ".layer.1.intermediate" in name and name in same] == []
    wrong = rerank(*flags, "--freeze", "words", "--overwrite")
    assert (wrong.code, "--freeze words: no trained tensor has such a name" in wrong.complaint) == (2, True)


def test_max_duration_exits_10_and_other_settings_are_refused(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "--epochs", "1e6"]
    stopped = rerank(*flags, "--max-duration", "2s", "-q")
    assert stopped.code == 10
    assert (tmp_path / "out.partial").is_dir()
    other = rerank(*flags, "--max-duration", "2s", "--batch-groups", "3")
    assert other.code == 6
    assert "started with other settings (batch groups 16 → 3)" in other.complaint
    required = rerank(*flags, "--resume", "require", "-o", tmp_path / "new")
    assert (required.code, "there is no checkpoint to resume from" in required.complaint) == (6, True)
    restarted = rerank(*flags, "--max-duration", "2s", "--batch-groups", "3", "--on-changed", "restart")
    assert restarted.code == 10
    assert "starting over, the unfinished run with" in restarted.err


def test_one_run_an_output(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "--epochs", "1e6"]
    with started(*flags, "-q"):
        until(lambda: list((tmp_path / "out.partial").glob("log.jsonl")))
        second = rerank(*flags)
        until(lambda: b"loss" in (tmp_path / "out.partial" / "log.jsonl").read_bytes())
        shown = rerank("status", tmp_path / "out").out.decode()
        found = rerank("status", tmp_path / "out", "--json").records[0]
    assert "state       running: process" in shown
    assert "done        step " in shown
    assert found["state"] == "running"
    assert found["progress"]["loss"] > 0
    assert second.code == 6
    assert "being written by process" in second.complaint


def test_a_held_out_run_is_measured_and_the_best_weights_are_kept(beir, tmp_path):
    run = ["--run", beir / "run.trec", "--beir", beir, "--eval-run", beir / "run.trec", "--eval-beir", beir]
    flags = [*run, "--batch-groups", "4", "--group-size", "4", "--epochs", "12", "--lr", "2e-3", "--eval-every", "4"]
    ended = rerank("train", "-m", TINY, "-o", tmp_path / "out", *flags, "--patience", "2")
    assert ended.code == 0, ended.err
    lines = log(tmp_path / "out")
    found = [line for line in lines if line.get("event") == "evaluation"]
    steps = [line["step"] for line in lines if "loss" in line]
    assert [line["step"] for line in found] == list(range(0, found[-1]["step"] + 1, 4))
    assert steps == list(range(1, steps[-1] + 1))
    values = {line["step"]: line["measures"]["nDCG@10"] for line in found}
    manifest = json.loads((tmp_path / "out" / "rerank_training.json").read_text())
    best = manifest["best_step"]
    assert values[best] == max(value for step, value in values.items() if step)
    assert steps[-1] == min(36, best + 8)  # two evaluations without a better one, or the end
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| nDCG@10 | " in card
    assert f"by the weights of step {best}" in card
    assert set(manifest["data"]["files"]) == {
        str(beir / name) for name in ("run.trec", "queries.jsonl", "corpus.jsonl", "qrels/train.tsv")
    }
    # The result is the best step's model: the command measures what was measured while training.
    depth = ["--run", beir / "run.trec", "--beir", beir, "--depth", "100", "--format", "trec"]
    assert rerank("run", *depth, "-m", tmp_path / "out", "-o", tmp_path / "run.trec", "-q").code == 0
    evaluated = rerank(
        "eval", tmp_path / "run.trec", "--qrels", beir / "qrels" / "dev.tsv", "--measures", "nDCG@10", "--json"
    )
    assert json.loads(evaluated.out)["means"]["nDCG@10"] == pytest.approx(values[best], abs=1e-6)


def test_a_dry_run_estimates_and_writes_nothing(groups, tmp_path):
    ended = rerank("train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "--dry-run", "-q")
    assert ended.code == 0, ended.err
    text = ended.out.decode()
    assert text.startswith("24 groups, 2 steps, ")
    assert " tokens a second\n" in text
    assert "GiB of memory" in text
    assert list(tmp_path.iterdir()) == []


def test_bad_records_are_left_out_with_exit_code_3(groups, tmp_path):
    data = write_lines(
        tmp_path / "bad.jsonl", [*Path(groups).read_text().splitlines()[:4], {"query": "x", "neg": ["y"]}]
    )
    flags = ["train", data, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "-q"]
    failed = rerank(*flags)
    assert (failed.code, failed.err.count("\n")) == (4, 1)
    assert failed.err == f"rerank: {data}:5: the record has no positive (got 1 negatives). Fix: --on-error skip\n"
    skipped = rerank(*flags, "--on-error", "skip", "--errors", tmp_path / "errors.jsonl")
    assert (skipped.code, skipped.err) == (3, "")
    again = rerank(*flags[:-1], "--on-error", "skip", "--errors", tmp_path / "errors.jsonl")
    assert (again.code, "already complete" in again.err) == (3, True)
    assert json_lines((tmp_path / "errors.jsonl").read_bytes())[0]["line"] == 5


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "there is no training data. Fix: name INPUT files, or --run with --qrels"),
        (["-"], 2, "training data is read more than once, and stdin cannot be"),
        (["gone.jsonl"], 4, "gone.jsonl: there is no such file"),
        (["DATA", "--qrels", "x"], 2, "--qrels needs --run RUN"),
        (["DATA", "--layer-loss", "final"], 2, "--layer-loss final: 24 of 24 groups have no teacher scores"),
        (["DATA", "--layer-loss", "last"], 2, "--layer-loss: "),
        (["DATA", "--start-layer", "2"], 2, "has no heads on several layers"),
        (["DATA", "--cutoff-layers", "2"], 2, "--cutoff-layers is for scoring"),
        (["DATA", "--pos-weight", "2"], 2, "--pos-weight is for --loss bce (got ce)"),
        (["DATA", "--lora-rank", "2"], 2, "need --lora"),
        (["DATA", "--loss", "distil"], 2, "--loss distil: 24 of 24 groups have no teacher scores"),
        (["DATA", "--group-size", "1"], 2, "--loss ce compares passages of a query (expected 2 or more)"),
        (["DATA", "--epochs", "0"], 2, "there is no step to compute"),
        (["DATA", "--epochs", "inf"], 2, "--epochs inf: expected a finite number"),
        (["DATA", "-o", "/"], 2, "-o /: is the root folder"),
        (["DATA", "--log", "-"], 2, "is a device or a pipe, and the log is read again"),
        (["DATA", "--log", "/dev/stdout"], 2, "is a device or a pipe, and the log is read again"),
        (["DATA", "--teacher", "mini", "--loss", "ce"], 2, "--teacher: --loss ce reads no scores"),
        (["DATA", "--teacher", "mini", "--loss", "lambdarank"], 2, "--teacher: --loss lambdarank reads no scores"),
        (["DATA", "--errors", "DATA", "--on-error", "skip"], 6, "Fix: another --errors"),
        (["DATA", "--teacher", "mini", "--teacher-scores", "DATA", "--overwrite"], 6, "Fix: another --teacher-scores"),
        (["DATA", "--patience", "2"], 2, "--patience needs --eval-run RUN"),
        (["DATA", "--log", "DATA"], 6, "would be written while it is read as an input"),
        (["DATA", "-o", "DATA"], 6, "the result would replace"),
        (["DATA", "-o", TINY + "/config.json"], 6, "exists and is no folder"),
        (["DATA", "-o", "-"], 2, "the result is a folder"),
        (["DATA", "-m", "gone/model"], 5, "gone/model"),
        (["DATA", "--lr", "-1"], 2, "expected a number from 0"),
        (["DATA", "--report-to", "unknown"], 2, "--report-to unknown: not known"),
    ],
)
def test_what_cannot_be_done_is_one_line(groups, tmp_path, flags, code, message):
    given = [groups if flag == "DATA" else flag for flag in flags]
    model = [] if "-m" in flags else ["-m", TINY]
    output = [] if "-o" in flags else ["-o", tmp_path / "out"]
    ended = rerank("train", *given, *model, *output, "-q")
    assert ended.code == code, ended.err
    assert message in ended.complaint
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_of_others_is_never_replaced(groups, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("x")
    flags = ["train", groups, "-m", TINY, "--group-size", "4", "-q", "--overwrite"]
    assert "was not made by rerank train" in rerank(*flags, "-o", tmp_path / "mine").complaint
    assert "was not made by rerank train" in rerank(*flags, "-o", tmp_path / "out").complaint
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert (tmp_path / "out.partial" / "thesis.txt").exists()
    assert rerank(*flags[:-1], "-o", tmp_path / "new").code == 0
    before = weights(tmp_path / "new")
    assert rerank(*flags[:-1], "-o", tmp_path / "new", "--lr", "1e-3").code == 6
    assert rerank(*flags, "-o", tmp_path / "new", "--lr", "1e-3").code == 0
    assert weights(tmp_path / "new") != before


def test_what_is_read_is_never_replaced_by_the_result(groups, beir, tmp_path):
    flags = ["train", groups, "-m", TINY, "--group-size", "4", "-q"]
    assert rerank(*flags, "-o", tmp_path / "out").code == 0
    before = weights(tmp_path / "out")
    inside = shutil.copy(groups, tmp_path / "out" / "train.jsonl")
    again = ["--overwrite", "-o", tmp_path / "out", "--group-size", "4", "-q"]
    held_out = ["--eval-run", beir / "run.trec", "--eval-beir", beir, "-m", TINY]
    for given in (
        [inside, "-m", TINY],
        [groups, "-m", tmp_path / "out"],
        [groups, "-m", TINY, "--teacher", tmp_path / "out"],
        [groups, "-m", TINY, "--log", tmp_path / "out" / "log"],
    ):
        ended = rerank("train", *given, *again)
        assert (ended.code, "the result would replace" in ended.complaint) == (6, True), ended.err
    ended = rerank("train", groups, *held_out, *again, "--log", beir / "run.trec")
    assert (ended.code, "Fix: another --log" in ended.complaint) == (6, True)
    assert weights(tmp_path / "out") == before
    assert Path(inside).exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_lists_of_one_passage_are_refused_or_named(tmp_path):
    rows = [{"query": f"q {i % 3}", "passage": f"a {i}", "label": i % 2} for i in range(9)]
    flags = ["train", write_lines(tmp_path / "apart.jsonl", rows), "-m", TINY, "--loss", "lambdarank"]
    ended = rerank(*flags, "-o", tmp_path / "out")
    assert (ended.code, "every group has only one. Fix: --sort" in ended.complaint) == (2, True)
    assert rerank(*flags, "-o", tmp_path / "out", "--sort", "-q").code == 0
    write_lines(tmp_path / "apart.jsonl", [*rows, rows[-1] | {"passage": "b", "label": 1}])
    ended = rerank(*flags, "-o", tmp_path / "other")
    assert (ended.code, "learns nothing from 8 of 9 groups, which have one passage" in ended.err) == (0, True)


def test_options_of_layers_and_adapters_are_not_ignored(groups, tmp_path):
    flags = ["train", groups, "--group-size", "4", "-q", "--max-steps", "1"]
    layered = ["-m", PARITY / "minicpm-layerwise", "--loss", "bce", "--layer-loss", "last"]
    ended = rerank(*flags, *layered, "-o", tmp_path / "layers")
    assert (ended.code, "--loss bce is the same for all layers" in ended.complaint) == (2, True)
    assert rerank(*flags, "-m", PARITY / "gemma", "--no-merge", "-o", tmp_path / "adapter").code == 0
    ended = rerank(*flags, "-m", tmp_path / "adapter", "--no-merge", "-o", tmp_path / "out")
    assert (ended.code, "has an adapter already" in ended.complaint) == (2, True)


def test_prompts_that_an_encoder_does_not_read_are_named(groups, tmp_path):
    records = [json.loads(line) | {"prompt": "find it"} for line in Path(groups).read_text().splitlines()]
    data = write_lines(tmp_path / "train.jsonl", records)
    ended = rerank("train", data, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4")
    assert ended.code == 0
    assert ended.err.count("the prompts of the records are left out") == 1


def test_a_quiet_run_says_nothing(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "-q"]
    stopped = rerank(*flags, "--epochs", "1e6", "--max-duration", "1s")
    assert (stopped.code, stopped.err) == (10, "")
    for restart in (["--restart"], []):
        ended = rerank(*flags, *restart)
        assert (ended.code, ended.err) == (0, "")


def test_a_teacher_scores_first(beir, tmp_path):
    flags = ["train", "--run", beir / "run.trec", "--beir", beir, "-m", TINY, "--group-size", "4", "-q"]
    flags += ["--teacher", PARITY / "xlm-roberta"]
    kept = tmp_path / "scored.jsonl"
    assert rerank(*flags, "-o", tmp_path / "out", "--teacher-scores", kept).code == 0
    scored = json_lines(kept.read_bytes())
    assert len(scored) == 12
    assert all(len(record["neg_scores"]) == len(record["neg"]) == 5 for record in scored)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "scored.jsonl"}
    manifest = json.loads((tmp_path / "out" / "rerank_training.json").read_text())
    assert manifest["loss"] == "distil"
    # The same groups with scores as INPUT train the same.
    direct = ["train", kept, "-m", TINY, "--group-size", "4", "-q", "-o", tmp_path / "direct"]
    assert rerank(*direct).code == 0
    assert [line["loss"] for line in log(tmp_path / "direct")] == [line["loss"] for line in log(tmp_path / "out")]
    assert rerank(*flags, "-o", tmp_path / "again").code == 0
    assert not list(tmp_path.glob("again.*"))


def test_the_dtype_is_that_of_the_teacher_too(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "--max-steps", "1"]
    flags += ["--teacher", PARITY / "xlm-roberta", "--teacher-scores", tmp_path / "scores.jsonl"]
    ended = rerank(*flags, "--dtype", "bf16")
    assert ended.code == 0
    assert "xlm-roberta on cpu in bf16" in ended.err
    plain = rerank(*flags, "--overwrite")
    assert plain.code == 0
    assert "xlm-roberta on cpu in bf16" not in plain.err


def test_scores_of_a_teacher_that_nothing_reads_are_not_computed(tmp_path):
    flags = ["-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "-q", "--teacher", PARITY / "xlm-roberta"]
    alone = write_lines(tmp_path / "alone.jsonl", [{"query": f"q {i}", "pos": [f"a {i}"]} for i in range(9)])
    ended = rerank("train", alone, *flags)
    assert (ended.code, "9 of 9 groups have no negatives" in ended.complaint) == (2, True)
    pairs = [{"query": "q", "passage": word, "label": number} for number, word in enumerate(["a", "b", "c"])]
    ended = rerank("train", write_lines(tmp_path / "pairs.jsonl", pairs), *flags, "--loss", "mse")
    assert (ended.code, "1 of 1 groups have labels or scores, which --loss mse reads" in ended.complaint) == (2, True)
    assert {path.name for path in tmp_path.iterdir()} == {"alone.jsonl", "pairs.jsonl"}
    # With values for single passages, no negatives are needed.
    assert rerank("train", alone, *flags, "--loss", "mse").code == 0


def test_bad_records_are_counted_with_a_teacher_too(groups, tmp_path):
    data = write_lines(tmp_path / "bad.jsonl", [*Path(groups).read_text().splitlines()[:4], {"query": "x"}])
    flags = ["train", data, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "-q", "--on-error", "skip"]
    flags += ["--errors", tmp_path / "errors.jsonl", "--teacher", PARITY / "xlm-roberta"]
    assert [rerank(*flags).code, rerank(*flags).code] == [3, 3]
    assert [line["line"] for line in json_lines((tmp_path / "errors.jsonl").read_bytes())] == [5]
    assert json.loads((tmp_path / "out" / "rerank_training.json").read_text())["rejected"] == 1


def test_scores_of_other_data_are_not_trained_on(groups, tmp_path):
    """A run that is stopped after the teacher has scored, whose data is replaced then."""
    data = tmp_path / "train.jsonl"
    shutil.copy(groups, data)
    flags = ["train", data, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "-q"]
    flags += ["--teacher", PARITY / "xlm-roberta"]
    with started(*flags, "--epochs", "1e6") as process:
        until(lambda: (tmp_path / "out.teacher.jsonl.done").exists())
        process.kill()
    write_lines(data, [{"query": "new", "pos": ["yes"], "neg": ["a", "b", "c", "d"]}])
    refused = rerank(*flags)
    assert (refused.code, "was made of other data, or by another teacher" in refused.complaint) == (6, True)
    assert rerank(*flags, "--on-changed", "restart").code == 0
    assert json.loads((tmp_path / "out" / "rerank_training.json").read_text())["data"]["groups"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"out", "train.jsonl"}


def test_groups_of_a_teacher_that_was_killed_are_made_again(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "-q"]
    flags += ["--teacher", PARITY / "xlm-roberta", "--teacher-scores", tmp_path / "scores.jsonl"]
    write_lines(tmp_path / "scores.jsonl.groups", [{"query": "old", "pos": ["yes"], "neg": ["no"]}])
    assert rerank(*flags).code == 0
    assert len(json_lines((tmp_path / "scores.jsonl").read_bytes())) == 24


def test_a_dry_run_calls_no_teacher(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "-o", tmp_path / "out", "--group-size", "4", "--dry-run"]
    ended = rerank(*flags, "--teacher", PARITY / "xlm-roberta")
    assert ended.code == 0
    assert "the scores of --teacher are left out" in ended.err
    assert list(tmp_path.iterdir()) == []


def two_processes(*command):
    """The outcome of a command that torchrun starts twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    env = environment({"OMP_NUM_THREADS": "1"})
    ended = subprocess.run([*launch, *map(str, command)], env=env, capture_output=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended


def test_two_processes_compute_the_same_losses_as_one(groups, tmp_path):
    flags = ["train", groups, "-m", TINY, "--batch-groups", "5", "--group-size", "4", "--dropout", "0", "--lr", "1e-3"]
    assert rerank(*flags, "-o", tmp_path / "one", "-q").code == 0
    # Without the `--`, torchrun takes `--log` for an abbreviation of its own flags.
    ended = two_processes("-m", "--", "rerank_cli", *flags, "-o", tmp_path / "two", "--log", tmp_path / "two.log")
    assert ended.stderr.decode().count("5 steps in") == 1
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=5e-6)
    assert (tmp_path / "two.log").read_bytes() == (tmp_path / "two" / "training_log.jsonl").read_bytes()
    for name in ("step", "pairs", "tokens", "lr"):
        assert [line[name] for line in two] == [line[name] for line in one]
    dry = two_processes("-m", "--", "rerank_cli", *flags, "-o", tmp_path / "dry", "--dry-run")
    assert dry.stdout.decode().count(" groups, 5 steps, ") == 1


@pytest.mark.skipif("RERANK_KILLS" not in os.environ, reason="RERANK_KILLS=20 kills a run so often")
def test_many_kills_at_random_moments_leave_no_trace(groups, tmp_path):
    rng = random.Random(7)
    flags = ["train", groups, "-m", TINY, "--batch-groups", "2", "--group-size", "4", "--epochs", "40", "--lr", "1e-3"]
    flags += ["--save-steps", "3", "-q"]
    assert rerank(*flags, "-o", tmp_path / "whole").code == 0
    for _ in range(int(os.environ["RERANK_KILLS"])):
        with started(*flags, "-o", tmp_path / "out") as process:
            before = {path.name for path in (tmp_path / "out.partial").glob("checkpoint-*")}
            until(
                lambda p=process, seen=before: (
                    p.poll() is not None or {x.name for x in (tmp_path / "out.partial").glob("checkpoint-*")} - seen
                )
            )
            try:
                process.wait(timeout=rng.uniform(0, 0.5))
            except subprocess.TimeoutExpired:
                process.kill()
    assert rerank(*flags, "-o", tmp_path / "out").code == 0
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")
    assert log(tmp_path / "out") == log(tmp_path / "whole")


def test_a_bi_encoder_gets_a_head_and_trains_to_a_reranker(groups, tmp_path):
    """The base of a bi-encoder has neither a head nor one that `rerank run` takes."""
    base = tmp_path / "bi-encoder"
    script = (
        "import sys, transformers; transformers.BertModel.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", script, TINY, str(base)], check=True, capture_output=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((Path(TINY) / name).read_bytes())
    (base / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    assert rerank("score", "a", "b", "-m", base).code == 5
    flags = ["train", groups, "--group-size", "4", "-q", "-m", base, "--lr", "1e-3"]
    for name in ("out", "same"):
        assert rerank(*flags, "-o", tmp_path / name).code == 0
    assert weights(tmp_path / "out") == weights(tmp_path / "same")
    assert not list(tmp_path.glob("*.partial*"))
    scored = rerank("score", "a", "b", "c d", "-m", tmp_path / "out")
    assert (scored.code, len(scored.records)) == (0, 2)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    manifest = json.loads((tmp_path / "out" / "rerank_training.json").read_text())
    assert manifest["base"]["name"] == str(base)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_causal_model_becomes_a_layerwise_one(groups, tmp_path, kind):
    base = tmp_path / "causal"
    script = (
        "import sys, torch, transformers; sys.path.insert(0, sys.argv[1]); import tiny; torch.manual_seed(1);"
        "model = transformers.AutoModelForCausalLM.from_config(tiny.decoders()[sys.argv[2]]);"
        "model.config.sliding_window = 4096; model.save_pretrained(sys.argv[3])"
    )
    subprocess.run([sys.executable, "-c", script, str(PARITY.parent), kind, str(base)], check=True, capture_output=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((PARITY / "gemma" / name).read_bytes())
    before = rerank("score", "is it a bear", "yes it is", "no", "-m", base).records
    out = tmp_path / "out"
    flags = ["train", groups, "--group-size", "4", "-q", "-m", base, "-o", out, "--start-layer", "2"]
    flags += ["--max-steps", "1"]
    assert rerank(*flags, "--lr", "0").code == 0
    lines = log(out)
    assert lines[0]["loss"] > 0
    assert len(before) == 2
    after = rerank("score", "is it a bear", "yes it is", "no", "-m", out, "--cutoff-layers", "3").records
    assert after == rerank("score", "is it a bear", "yes it is", "no", "-m", out).records
    if kind == "llama":  # whose prompt is the same: the last layer begins as the model that it was made of
        assert [r["logit"] for r in after] == pytest.approx([r["logit"] for r in before], abs=1e-4)
    assert rerank("score", "is it a bear", "yes it is", "no", "-m", out, "--cutoff-layers", "2,3").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_thread_of_the_process_group_outlives_it(tmp_path):
    script = tmp_path / "joins.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from rerank_cli.training.processes import joined\n"
        "with joined('cpu') as processes:\n"
        "    import transformers.modeling_utils\n"
        "    assert processes.gather(processes.rank) == [0, 1]\n"
        "deadline = time.monotonic() + 10\n"
        "while (left := len(list(Path('/proc/self/task').iterdir()))) > 1 and time.monotonic() < deadline:\n"
        "    time.sleep(0.05)  # a thread that was joined may be listed for a moment\n"
        "os.write(1, f'{left}\\n'.encode())  # at once: the other process writes to the same pipe\n"
    )
    assert two_processes(script).stdout.split() == [b"1", b"1"]
