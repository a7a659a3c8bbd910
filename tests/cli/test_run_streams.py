"""stdout carries data and nothing else, and tells when it can carry no more."""

import os
import subprocess

import pytest
from shell import (
    RERANK,
    TIMEOUT,
    TINY,
    environment,
    is_one_line,
    json_lines,
    rerank,
    run_tiny,
    started,
    until,
)

pytestmark = pytest.mark.slow

PRINTING = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            print("a stray print of a library")

sys.meta_path.insert(0, Finder())
"""


def test_a_stray_print_of_a_library_does_not_reach_stdout(requests_file, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(PRINTING)
    ended = run_tiny(requests_file, env={"PYTHONPATH": str(tmp_path)})
    assert [record["id"] for record in ended.records] == ["a", "b"]
    assert "a stray print of a library" in ended.err


def test_a_full_disk_behind_stdout_is_one_line_and_exit_7(requests_file):
    with open("/dev/full", "wb") as full:
        ended = run_tiny(requests_file, stdout=full)
    assert ended.code == 7
    assert is_one_line(ended.err)
    assert "No space left on device" in ended.err


def test_a_full_disk_behind_the_output_is_one_line_and_exit_7(requests_file):
    ended = run_tiny(requests_file, "-o", "/dev/full")
    assert ended.code == 7
    assert is_one_line(ended.err)
    assert "/dev/full" in ended.err


def test_a_reader_that_leaves_ends_the_run_quietly_of_sigpipe(long_file):
    with started("run", long_file, "-m", TINY, "-q", "--chunk-pairs", "40") as process:
        assert process.stdout.readline().startswith(b'{"id":0,')
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(timeout=30), err) == (-13, b"")


def test_output_is_written_to_a_pipe_while_the_input_is_still_open():
    line = b'{"query": "q", "documents": ["a", "b"]}\n'
    with started("run", "-m", TINY, "-q", "--chunk-pairs", "2", stdin=subprocess.PIPE) as process:
        process.stdin.write(line * 100)
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"id":"rerank-1"')
        assert process.poll() is None
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 99
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("command", [["--version"], ["models"], ["--help"]])
def test_small_commands_notice_a_full_disk_too(command):
    with open("/dev/full", "wb") as full:
        ended = rerank(*command, stdout=full)
    assert ended.code == 7
    assert is_one_line(ended.err)


def test_a_named_pipe_is_written_where_it_is(requests_file, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started("run", requests_file, "-m", TINY, "-q", "-o", fifo) as process:
        with open(fifo, "rb") as reader:
            assert len(reader.read().splitlines()) == 2
        until(lambda: process.poll() is not None)
        assert process.returncode == 0
    assert fifo.is_fifo()


def in_shell(words):
    """`rerank run` with the tiny model and more words for a shell."""
    command = ["sh", "-c", f"{RERANK} run -m {TINY} {words}"]
    return subprocess.run(command, capture_output=True, env=environment(), timeout=TIMEOUT, check=False)


def test_a_closed_stdin_is_a_missing_input_and_no_internal_error():
    ended = in_shell("<&-")
    assert ended.returncode in (2, 4)
    assert is_one_line(ended.stderr.decode())
    assert b"internal error" not in ended.stderr


def test_a_closed_stdout_is_an_output_that_cannot_be_written(requests_file):
    ended = in_shell(f"{requests_file} -q >&-")
    assert ended.returncode == 7
    assert is_one_line(ended.stderr.decode())


def test_with_stderr_closed_stdout_still_carries_data_alone(requests_file):
    ended = in_shell(f"{requests_file} 2>&-")
    assert ended.returncode == 0
    assert [answer["id"] for answer in json_lines(ended.stdout)] == ["a", "b"]
