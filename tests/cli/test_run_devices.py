"""`--devices`: worker processes of the installed command, with a real model."""

import pytest
from shell import TINY, is_one_line, rerank, run_tiny, write_lines

pytestmark = pytest.mark.slow


def test_two_workers_write_the_bytes_of_one_process_to_stdout(tmp_path):
    words = ["the", "giant", "panda", "is", "a", "bear", "that", "lives", "in", "china", "and", "eats", "bamboo"]
    records = [
        {"id": i, "query": f"panda {i}", "documents": [" ".join(words[: 1 + (i * j) % 12]) for j in range(1, 9)]}
        for i in range(30)
    ]
    path = write_lines(tmp_path / "in.jsonl", records)
    flags = ["--threads", "1", "--chunk-pairs", "24", "--scores", "both"]
    one, two = run_tiny(path, *flags), run_tiny(path, *flags, "--devices", "cpu,cpu")
    assert (two.code, two.err) == (0, "")
    assert two.out == one.out
    assert len(two.records) == 30


def test_a_device_that_is_not_here_ends_the_run_as_it_does_without_workers(requests_file):
    ended = run_tiny(requests_file, "--devices", "0,99")
    assert ended.code == 2
    assert "--devices cuda:" in ended.err
    assert ". Fix: --devices c" in ended.err
    assert is_one_line(ended.err)


def test_device_and_devices_do_not_go_together(requests_file):
    ended = rerank("run", requests_file, "-m", TINY, "--device", "cpu", "--devices", "cpu,cpu")
    assert (ended.code, ended.err) == (2, "rerank: --device and --devices: give one of them\n")
