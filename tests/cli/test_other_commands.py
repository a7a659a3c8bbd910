"""`rerank score`, `check` and `models`, the version and the help."""

import json
import os
import pty
import subprocess

import pytest
from shell import PANDA, RERANK, TIMEOUT, TINY, environment, is_one_line, rerank, run_tiny, started, write_lines


def test_score_in_a_pipe_is_json_lines_best_first():
    records = rerank("score", "what is panda?", "hi", PANDA, "-m", "mini").records
    assert [record["text"] for record in records] == [PANDA, "hi"]
    assert set(records[0]) == {"index", "relevance_score", "logit", "text"}
    assert records[0]["index"] == 1


@pytest.mark.slow
def test_score_on_a_terminal_is_a_table_that_shows_markup_as_it_is():
    ours, theirs = pty.openpty()
    command = [RERANK, "score", "q", "[red]doc[/red]", "other", "-m", TINY]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment())
    os.close(theirs)
    seen = b""
    try:
        while more := os.read(ours, 65536):
            seen += more
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(ours)
    err = process.communicate(timeout=TIMEOUT)[1]
    assert (process.returncode, err) == (0, b"")
    assert b"rank" in seen
    assert b"[red]doc[/red]" in seen
    assert b"{" not in seen


def test_an_empty_query_cannot_be_scored():
    ended = rerank("score", " ", "hi", "-m", TINY)
    assert ended.code != 0
    assert is_one_line(ended.err)


@pytest.mark.slow
def test_score_dies_quietly_when_nobody_reads():
    with started("score", "q", "hi", "-m", TINY) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=TIMEOUT)) == (b"", -13)


def test_the_built_in_model_ranks_the_panda_first():
    request = {"query": "what is panda?", "documents": ["hi", "The capital of France is Paris.", PANDA]}
    ended = rerank("run", "-m", "mini", "-q", stdin=json.dumps(request).encode())
    (answer,) = ended.records
    assert answer["model"] == "mini"
    assert answer["results"][0]["document"]["text"] == PANDA


@pytest.fixture
def mixed(tmp_path):
    good = {"query": "panda", "documents": ["hi", "bear", "hi " * 600]}
    return write_lines(tmp_path / "mixed.jsonl", [good, {"query": "", "documents": ["a"]}, good])


def test_check_counts_records_pairs_tokens_and_what_would_be_cut(requests_file):
    ended = rerank("check", requests_file, "-m", TINY)
    assert ended.code == 0
    figures = dict(line.split(maxsplit=1) for line in ended.out.decode().splitlines()[:5])
    assert (figures["records"], figures["pairs"]) == ("2", "4")
    assert figures["truncated"].startswith("0 pairs")


def test_check_reports_bad_records_and_exits_3(mixed):
    ended = rerank("check", mixed, "-m", TINY, "--json")
    assert ended.code == 3
    (report,) = ended.records
    assert (report["records"], report["pairs"], report["truncated_pairs"]) == (3, 6, 2)
    assert report["rejected"] == {"empty_query": 1}
    assert report["examples"][0].startswith(f"{mixed}:2: ")
    assert sum(report["histogram"].values()) == 6


def test_a_run_and_a_check_count_the_same_tokens(requests_file):
    checked = rerank("check", requests_file, "-m", TINY, "--json").records[0]
    answers = run_tiny(requests_file).records
    assert checked["tokens"] == sum(answer["usage"]["total_tokens"] for answer in answers)


def test_models_are_a_table_and_with_json_one_object_a_line():
    table = rerank("models").out.decode().splitlines()
    known = rerank("models", "--json").records
    alone = [model["name"] for model in known if model["name"] in table]  # a long name has a line of its own
    assert alone == [
        "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
        "amberoad/bert-multilingual-passage-reranking-msmarco",
    ]
    assert len(table) == 2 * len(known) + 2 + len(alone)
    assert max(map(len, table)) <= 80
    built_in = next(model for model in known if model["name"] == "mini")
    assert built_in["on_disk"] is True
    assert {"name", "family", "parameters", "max_length", "licence", "note", "on_disk"} <= set(built_in)


def test_a_model_is_on_disk_only_where_hf_home_has_it(tmp_path):
    known = rerank("models", "--json", env={"HF_HOME": str(tmp_path)}).records
    assert {model["name"] for model in known if model["on_disk"]} == {"mini"}


def test_the_version_is_one_line():
    ended = rerank("--version")
    assert (ended.code, ended.err) == (0, "")
    assert is_one_line(ended.out.decode())
    assert ended.out.startswith(b"rerank ")


@pytest.mark.parametrize("command", ["", "run", "score", "check", "models"])
def test_help_imports_nothing_heavy(command):
    ended = rerank(*command.split(), "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ended.code == 0
    assert b"Usage: " in ended.out
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.err.splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "pyarrow", "tokenizers", "huggingface_hub", "numpy"}


def test_a_command_that_is_not_known_is_exit_2_and_one_line():
    ended = rerank("rrun")
    assert ended.code == 2
    assert is_one_line(ended.err)


def test_a_terminal_without_input_gets_help_instead_of_silence():
    ours, theirs = pty.openpty()
    try:
        ended = subprocess.run([RERANK, "run"], stdin=theirs, capture_output=True, timeout=TIMEOUT, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"INPUT" in ended.stderr
