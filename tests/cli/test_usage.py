"""What a wrong command line is answered: one line in our words, and the command that was probably meant."""

import pytest
from shell import is_one_line, rerank


def refused(*args, **settings):
    ended = rerank(*args, **settings)
    assert ended.code == 2
    assert ended.out == b""
    assert is_one_line(ended.err)
    return ended.err.removeprefix("rerank: ").rstrip("\n")


@pytest.mark.parametrize(
    ("args", "run"),
    [
        (["c.jsonl"], "c.jsonl"),
        (["my file.jsonl", "-o", "out.jsonl"], "'my file.jsonl' -o out.jsonl"),
        (["data/c.parquet", "--top-n", "3"], "data/c.parquet --top-n 3"),
        (["-"], "-"),
        (["-m", "mini", "c.jsonl"], "-m mini c.jsonl"),
        (["--top-n", "3", "c.jsonl"], "--top-n 3 c.jsonl"),
    ],
)
def test_a_file_or_a_flag_in_place_of_a_command_means_run(args, run):
    assert refused(*args).endswith(f". Fix: rerank run {run}")


def test_a_file_without_a_suffix_means_run_too(tmp_path):
    (tmp_path / "candidates").write_text("")
    assert refused("candidates", cwd=tmp_path) == "candidates: no such command. Fix: rerank run candidates"
    assert refused("candidates") == "candidates: no such command. Fix: rerank --help lists the commands"


def test_a_mistyped_command_is_suggested_with_its_arguments():
    assert refused("evla", "out.trec", "--qrels", "q") == "evla: no such command. Fix: rerank eval out.trec --qrels q"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "--top-n", "0"], "--top-n 0: expected a whole number from 1"),
        (["run", "--top-n", "ten"], "--top-n ten: expected a whole number from 1"),
        (["run", "--top-n", "1.5"], "--top-n 1.5: expected a whole number from 1"),
        (["run", "--verify", "20000"], "--verify 20000: expected a whole number from 1 to 10,000"),
        (["run", "--fuse-weight", "3"], "--fuse-weight 3: expected a number from 0 to 1"),
        (["run", "--min-score", "high"], "--min-score high: expected a number"),
        (["run", "--progress-interval", "0"], "--progress-interval 0: expected a number from 0.1"),
        (["run", "--dtype", "fp8"], "--dtype fp8: expected auto, fp32, fp16 or bf16"),
        (["run", "--fuse", "sum"], "--fuse sum: expected rrf or weighted"),
        (["inspect", "--record", "0"], "--record 0: expected a whole number from 1"),
        (["score", "q"], "Missing argument 'DOC'. Fix: see --help"),
        (["eval", "out.trec"], "--qrels is missing. Fix: --qrels FILE, or --dataset ID for a set of ir_datasets"),
    ],
)
def test_a_value_that_a_flag_does_not_take_is_answered_with_what_it_takes(args, message):
    assert refused(*args) == message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TOP_N", "0", "a whole number from 1"),
        ("DTYPE", "half", "auto, fp32, fp16 or bf16"),
        ("SORT", "2", "true or false"),
    ],
)
def test_a_value_of_the_environment_names_its_variable(name, value, expected):
    assert refused("run", "x", env={f"RERANK_{name}": value}) == f"RERANK_{name}={value}: expected {expected}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("top-n = 0", "a whole number from 1"),
        ("dtype = 7", "auto, fp32, fp16 or bf16"),
        ("sort = 'maybe'", "true or false"),
    ],
)
def test_a_value_of_a_configuration_file_names_the_file(line, expected, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(line)
    plain = line.replace("'", "")
    assert refused("run", "x", "--config", path) == f"--config {path}: {plain}: expected {expected}"


def test_switches_take_the_words_that_they_took(requests_file):
    for word in ("1", "yes", "TRUE"):
        ended = rerank("run", requests_file, "--print-config", env={"RERANK_SORT": word})
        assert "sort = true  # environment" in ended.out.decode()


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_device_that_is_not_there_names_the_way_out(device):
    message = refused("score", "q", "d", "-m", "mini", "--device", device)
    assert message.startswith(f"--device {device}: ")
    assert ". Fix: --device c" in message
